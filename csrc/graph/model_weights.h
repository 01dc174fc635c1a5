// A model file's initializers as Weights.
#pragma once
#include <memory>
#include <string>

#include "graph/ir.h"
#include "memory/weight_store.h"

namespace inferkit {

/// Views on the named constants of `file`'s graph (strings left out); they keep the mappings alive.
std::shared_ptr<const Weights> weights_of(const ModelFile& file, const std::string& path);

/// The initializers of an ONNX file and its external data. Throws as read_onnx does.
std::shared_ptr<const Weights> open_onnx_weights(const std::string& path, Placement placement = Placement::kMapped);

}  // namespace inferkit
