// Reads an ONNX file into the IR. The reader trusts nothing: every length, count and offset is checked against the
// bytes that are there before anything of that size is allocated, and its work is bounded by the size of the file.
#pragma once
#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "graph/ir.h"

namespace inferkit {

/// Maps the file and its external data, and reads it. The data must lie in the folder that the path names or in that of
/// the file it leads to. Large tensors of floats and bytes are views into the mappings, which they keep alive, except
/// where encoding forces a copy, or `placement` wants one; those at odd addresses are copied when they are first read.
/// The files of such tensors are in ModelFile::files. The graph is checked: single definitions, no dangling names,
/// topological order (sorted here if the file's order is another), known opsets; model-local functions are inlined.
/// Throws Error(kModel) that names the node or value at fault, Error(kUnsupportedOp) for what the format allows and
/// inferkit lacks (fp8, sequences as inputs). Error(kModel) too where the file changes meanwhile.
ModelFile read_onnx(const std::string& path, Placement placement = Placement::kMapped);

/// The same from memory. `owner` keeps `bytes` alive (tensors hold it); where it is null every tensor is copied.
/// External data is looked for in `folder`, and refused where that is empty.
ModelFile read_onnx(std::span<const std::byte> bytes, const std::string& folder = {},
                    std::shared_ptr<const void> owner = nullptr);

}  // namespace inferkit
