// The safetensors format: a length, a JSON header, then the tensors' bytes.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/tensor_view.h"

namespace inferkit {

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  size_t offset = 0;  // from the start of the file; its element's alignment is not promised
};

struct SafetensorsIndex {
  std::vector<SafetensorsEntry> tensors;  // in the order of their bytes; names are unique
  std::map<std::string, std::string> metadata;
};

/// Reads and checks the header of a whole file. Every rule of the format holds afterwards: a header of at most
/// 100,000,000 bytes of strict JSON in UTF-8, no duplicate names, every tensor as long as its shape and dtype say, the
/// tensors side by side from the header's end to the file's with no hole and no overlap. Time is n log n and memory
/// linear in the header, whatever it holds. Throws Error(kModel), its message led by `where`, naming the tensor.
SafetensorsIndex parse_safetensors(std::span<const std::byte> file, const std::string& where = "safetensors");

}  // namespace inferkit
