#include "graph/ir.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "base/error.h"

namespace inferkit {

Tensor make_tensor(DType dtype, const Shape& shape, void** data) {
  const auto count = shape.checked_elements();
  if (!count) throw Error(ErrorCode::kModel, cat("a tensor of shape ", shape.str(), " is too large"));
  if (dtype == DType::kString) {
    auto strings = std::make_shared<std::vector<std::string>>(static_cast<size_t>(*count));
    *data = strings->data();
    return {dtype, shape, *data, strings};
  }
  const size_t bytes = static_cast<size_t>(*count) * dtype_size(dtype);
  const size_t padded = (bytes + 63) / 64 * 64;
  std::shared_ptr<void> memory(padded ? std::aligned_alloc(64, padded) : std::aligned_alloc(64, 64), std::free);
  if (!memory) throw std::bad_alloc();
  std::memset(memory.get(), 0, padded ? padded : 64);
  *data = memory.get();
  return {dtype, shape, memory.get(), memory};
}

std::string Node::label() const {
  std::string out = name.empty() ? "a node (" : "node '" + name + "' (";
  if (!domain.empty()) out += domain + ".";
  return out + op_type + ")";
}

std::vector<NodeOrigin> Node::origins() const {
  if (!stands_for.empty()) return stands_for;
  return {{domain.empty() ? op_type : domain + "." + op_type, name}};
}

namespace {

void number_nodes(Graph& graph, uint64_t& last) {
  for (Node& node : graph.nodes) {
    node.id = ++last;
    for (auto& [name, attribute] : node.attributes) {
      if (auto* subgraph = std::get_if<std::shared_ptr<Graph>>(&attribute)) number_nodes(**subgraph, last);
    }
  }
}

}  // namespace

void number_nodes(Graph& graph) {
  uint64_t last = 0;
  number_nodes(graph, last);
}

ValueId Graph::add_value(std::string value_name) {
  values.push_back({std::move(value_name), std::nullopt, std::nullopt});
  return static_cast<ValueId>(values.size() - 1);
}

}  // namespace inferkit
