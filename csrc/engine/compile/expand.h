// Operators that are written as others: in place of a shape rule and a lowering they have a function that spells the
// node out. That happens when a model is loaded, before anything is folded or fused, so that the spelled-out nodes get
// all the speed and types that their operators have. Shapes and types are not known yet.
#pragma once
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/compile/op_registry.h"
#include "graph/ir.h"
#include "graph/passes/pattern.h"

namespace inferkit {

/// One node, while it is spelled out.
class Expansion {
 public:
  using Attributes = std::map<std::string, Attribute, std::less<>>;

  Expansion(Graph& graph, const Node& node) : graph_(graph), node_(node) {}

  const Node& node() const { return node_; }
  /// kNoValue where it is left out.
  ValueId in(size_t i) const { return i < node_.inputs.size() ? node_.inputs[i] : kNoValue; }
  bool has(size_t i) const { return in(i) != kNoValue; }
  bool wants(size_t o) const { return o < node_.outputs.size() && node_.outputs[o] != kNoValue; }
  int64_t attr(std::string_view name, int64_t fallback) const { return int_attr(node_, name, fallback); }
  float attr(std::string_view name, float fallback) const { return float_attr(node_, name, fallback); }
  std::string attr(std::string_view name, const char* fallback) const { return string_attr(node_, name, fallback); }
  /// Those of the node's attributes that `names` lists, as they are.
  Attributes keep(std::initializer_list<std::string_view> names) const;
  /// nullptr where the value is not constant.
  const Tensor* constant(ValueId id) const { return id == kNoValue ? nullptr : graph_.constant(id); }

  /// The type of its elements, as the model file has it; it is certain of constants and of the model's inputs.
  std::optional<DType> dtype(ValueId id) const { return graph_.values[static_cast<size_t>(id)].dtype; }

  /// A node of the ONNX domain as opset `version` defines it; its first output, or all of them.
  ValueId add(std::string_view op, int version, std::vector<ValueId> inputs, Attributes attributes = {});
  std::vector<ValueId> add_many(size_t outputs, std::string_view op, int version, std::vector<ValueId> inputs,
                                Attributes attributes = {});
  /// The same of our own domain.
  std::vector<ValueId> add_internal(size_t outputs, std::string_view op, std::vector<ValueId> inputs,
                                    Attributes attributes = {});
  /// The nodes of a subgraph for these inputs; its outputs.
  std::vector<ValueId> add_body(const Graph& body, std::span<const ValueId> inputs);
  ValueId constant_of(Tensor tensor);
  ValueId number(float value);
  ValueId integers(std::vector<int64_t> values);

  /// Output `o` of the node is `id`.
  void give(size_t o, ValueId id);
  /// Refuses the node: Error(kUnsupportedOp).
  [[noreturn]] void refuse(const std::string& what) const;

  std::vector<Node>& nodes() { return nodes_; }

 private:
  Graph& graph_;
  const Node& node_;
  std::vector<Node> nodes_;
};

using ExpandFn = void (*)(Expansion&);

/// Adds a row for register_<family> functions: an operator that `expand` spells out, for the row's opsets.
void add_expanded(OpRegistry& registry, OpSchema schema, ExpandFn expand);

/// Has the node such a row?
bool is_expanded(const Node& node);

/// Spells out every node that has such a row, those of subgraphs too. Adds a line to `refused` for each that cannot be,
/// and leaves it.
void expand_nodes(Graph& graph, std::vector<std::string>& refused);

}  // namespace inferkit
