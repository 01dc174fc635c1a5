#include "graph/model_weights.h"

#include <algorithm>
#include <unordered_set>

#include "graph/onnx_reader.h"
#include "platform/stoppable.h"

namespace inferkit {

Initializers initializers_of(const ModelFile& file) {
  const Graph& graph = file.graph;
  Initializers out{{}, file.metadata, file.file_bytes, file.files};
  for (const size_t id : stoppable_indices(graph.values.size())) {
    const Tensor* tensor = graph.constant(static_cast<ValueId>(id));
    if (!tensor || tensor->dtype == DType::kString || graph.values[id].name.empty()) continue;
    out.named.push_back({graph.values[id].name, *tensor});
  }
  return out;
}

std::shared_ptr<const Weights> weights_of(const Initializers& initializers, const std::string& path) {
  return initializers.files.guarded([&] {
    std::vector<NamedTensor> tensors;
    auto owners = std::make_shared<std::unordered_set<std::shared_ptr<const void>>>();
    for (const auto& [name, tensor] : stoppable(initializers.named)) {
      tensors.push_back({name, tensor.view()});
      owners->insert(tensor.owner);
    }
    return std::make_shared<const Weights>(std::move(tensors), std::move(owners), initializers.metadata, path,
                                           initializers.file_bytes, initializers.files);
  });
}

std::shared_ptr<const Weights> open_onnx_weights(const std::string& path, Placement placement) {
  return weights_of(initializers_of(read_onnx(path, placement)), path);
}

}  // namespace inferkit
