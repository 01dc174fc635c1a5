#include "graph/model_weights.h"

#include <algorithm>
#include <unordered_set>

#include "graph/onnx_reader.h"
#include "platform/stoppable.h"

namespace inferkit {

std::shared_ptr<const Weights> weights_of(const ModelFile& file, const std::string& path) {
  const Graph& graph = file.graph;
  std::vector<NamedTensor> tensors;
  auto owners = std::make_shared<std::unordered_set<std::shared_ptr<const void>>>();
  for (const size_t id : stoppable_indices(graph.values.size())) {
    const Tensor* tensor = graph.constant(static_cast<ValueId>(id));
    if (!tensor || tensor->dtype == DType::kString || graph.values[id].name.empty()) continue;
    tensors.push_back({graph.values[id].name, tensor->view()});
    owners->insert(tensor->owner);
  }
  return std::make_shared<Weights>(std::move(tensors), std::move(owners), file.metadata, path, file.file_bytes,
                                   file.files);
}

std::shared_ptr<const Weights> open_onnx_weights(const std::string& path, Placement placement) {
  return weights_of(read_onnx(path, placement), path);
}

}  // namespace inferkit
