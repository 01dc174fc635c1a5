// A model file's initializers as Weights.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "graph/ir.h"
#include "memory/weight_store.h"

namespace inferkit {

/// A model file's named constants, strings left out, and what else Weights tell of it.
struct Initializers {
  struct Named {
    std::string name;
    Tensor tensor;
  };
  std::vector<Named> named;
  std::map<std::string, std::string> metadata;
  size_t file_bytes = 0;
  MappedFiles files;
};
Initializers initializers_of(const ModelFile& file);

/// Views on them, which keep the mappings alive. Copies those at odd addresses: throws Error(kModel) where a file has
/// changed.
std::shared_ptr<const Weights> weights_of(const Initializers& initializers, const std::string& path);

/// The initializers of an ONNX file and its external data. Throws as read_onnx does.
std::shared_ptr<const Weights> open_onnx_weights(const std::string& path, Placement placement = Placement::kMapped);

}  // namespace inferkit
