#include "graph/ir.h"

#include <cstdlib>
#include <limits>
#include <memory>
#include <new>

#include "base/error.h"
#include "platform/stoppable.h"

namespace inferkit {

Tensor make_tensor(DType dtype, const Shape& shape, void** data) {
  const auto count = shape.checked_elements();
  if (!count) throw Error(ErrorCode::kModel, cat("a tensor of shape ", shape.str(), " is too large"));
  // calloc gets large memory from the system as zeros: nobody waits for gigabytes to be written twice.
  constexpr size_t kAlignment = 64;
  if (static_cast<size_t>(*count) > std::numeric_limits<size_t>::max() / 2 / dtype_size(dtype)) throw std::bad_alloc();
  const size_t bytes = static_cast<size_t>(*count) * dtype_size(dtype);
  size_t room = bytes + 2 * kAlignment;
  const std::shared_ptr<void> memory(std::calloc(room, 1), std::free);
  if (!memory) throw std::bad_alloc();
  void* aligned = memory.get();
  *data = std::align(kAlignment, bytes + kAlignment, aligned, room);
  return {dtype, shape, *data, memory};
}

std::string Node::step_label() const {
  const std::string node = name.empty() ? "a node (" : "node '" + name + "' (";
  return node + (domain.empty() ? "" : domain + ".") + op_type + ")";
}

std::string Node::label() const {
  const std::string own = domain.empty() ? op_type : domain + "." + op_type;
  const bool rewritten = !stands_for.empty();
  const std::string& node = rewritten ? stands_for[0].name : name;
  std::string out = node.empty() ? "a node (" : "node '" + node + "' (";
  if (!rewritten) return out + own + ")";
  out += stands_for[0].op;
  if (stands_for.size() > 1) {
    const NodeOrigin& next = stands_for[1];
    out += ", in one step with " + (next.name.empty() ? "a node" : "'" + next.name + "'") + " (" + next.op + ")";
    if (stands_for.size() > 2) out += " and " + std::to_string(stands_for.size() - 2) + " more";
  } else if (stands_for[0].op != own) {
    out += ", which is computed with " + op_type;
  }
  return out + ")";
}

std::vector<NodeOrigin> Node::origins() const {
  if (!stands_for.empty()) return stands_for;
  return {{domain.empty() ? op_type : domain + "." + op_type, name}};
}

FloatList::FloatList(const std::vector<float>& list)
    : tensor(make_tensor<float>({static_cast<int64_t>(list.size())}, list)) {}

namespace {

struct Numbers {
  uint64_t nodes = 0, constants = 0;  // the last ones given
  std::unordered_map<const void*, uint64_t> constant_at;
};

void number_graph(Graph& graph, Numbers& numbers) {
  const auto id_of = [&](const Tensor& constant) {
    uint64_t& id = numbers.constant_at[constant.data.place()];
    if (id == 0) id = ++numbers.constants;
    return id;
  };
  for (const size_t id : stoppable_indices(graph.values.size())) {  // in an order that is the file's
    const auto it = graph.constants.find(static_cast<ValueId>(id));
    if (it != graph.constants.end()) it->second.id = id_of(it->second);
  }
  for (Node& node : stoppable(graph.nodes)) {
    node.id = ++numbers.nodes;
    for (auto& [name, attribute] : node.attributes) {
      if (auto* subgraph = std::get_if<std::shared_ptr<Graph>>(&attribute)) number_graph(**subgraph, numbers);
      if (auto* list = std::get_if<FloatList>(&attribute)) list->tensor.id = id_of(list->tensor);
    }
  }
}

}  // namespace

void number_graph(Graph& graph) {
  Numbers numbers;
  number_graph(graph, numbers);
}

ValueId Graph::add_value(std::string value_name) {
  values.push_back({std::move(value_name), std::nullopt, std::nullopt});
  return static_cast<ValueId>(values.size() - 1);
}

}  // namespace inferkit
