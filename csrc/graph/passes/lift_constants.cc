#include "base/error.h"
#include "base/text.h"
#include "graph/passes/passes.h"
#include "graph/passes/pattern.h"
#include "graph/text_tensor.h"

namespace inferkit {
namespace {

template <class T>
Tensor list_tensor(const std::vector<T>& values) {
  return make_tensor<T>(Shape{static_cast<int64_t>(values.size())}, std::span<const T>(values));
}

/// Whoever reads strings relies on it.
void check_text(const Node& node, std::span<const std::string> values) {
  for (const std::string& value : values) {
    if (is_utf8(value)) continue;
    throw Error(ErrorCode::kModel, cat(node.label(), ": holds the string ", quote(value), ", which is not UTF-8"));
  }
}

std::optional<Tensor> value_of(const Node& node) {
  for (const auto& [name, attribute] : node.attributes) {
    if (const auto* t = std::get_if<Tensor>(&attribute); t && (name == "value" || name == "sparse_value")) return *t;
    if (const auto* v = std::get_if<float>(&attribute); v && name == "value_float")
      return make_tensor<float>(Shape{}, std::span(v, 1));
    if (const auto* v = std::get_if<int64_t>(&attribute); v && name == "value_int")
      return make_tensor<int64_t>(Shape{}, std::span(v, 1));
    if (const auto* v = std::get_if<std::string>(&attribute); v && name == "value_string") {
      check_text(node, std::span(v, 1));
      return text_tensor({}, std::span(v, 1));
    }
    if (const auto* v = std::get_if<FloatList>(&attribute); v && name == "value_floats") return v->tensor;
    if (const auto* v = std::get_if<std::vector<int64_t>>(&attribute); v && name == "value_ints")
      return list_tensor(*v);
    if (const auto* v = std::get_if<std::vector<std::string>>(&attribute); v && name == "value_strings") {
      check_text(node, *v);
      return text_tensor({static_cast<int64_t>(v->size())}, *v);
    }
  }
  return std::nullopt;
}

/// A constant that a subgraph captures becomes a constant of the subgraph: the tensor is shared, not copied.
bool push_into(const Graph& outer, Graph& sub) {
  return std::erase_if(sub.captures, [&](const Capture& c) {
           const Tensor* constant = outer.constant(c.outer);
           if (constant) sub.constants.emplace(c.inner, *constant);
           return constant != nullptr;
         }) > 0;
}

}  // namespace

bool lift_constants(Graph& graph) {
  Rewriter r(graph);
  for (const int n : r.nodes()) {
    const Node& node = r.node(n);
    if (!is_op(node, "Constant") || node.outputs.size() != 1 || node.outputs[0] == kNoValue) continue;
    auto tensor = value_of(node);
    if (!tensor) continue;
    const ValueId id = node.outputs[0];
    Value& value = graph.values[static_cast<size_t>(id)];
    value.dtype = tensor->dtype;
    value.shape = tensor->shape;
    graph.constants.emplace(id, std::move(*tensor));
    r.remove(n);
  }
  bool changed = r.finish();
  for_each_subgraph(graph, [&](Graph& sub) {
    changed |= push_into(graph, sub);
    changed |= lift_constants(sub);
  });
  return changed;
}

}  // namespace inferkit
