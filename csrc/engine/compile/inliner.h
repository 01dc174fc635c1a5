// A subgraph that becomes part of the graph around it.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "graph/ir.h"
#include "platform/stoppable.h"

namespace inferkit {

/// The subgraph's nodes, constants, inputs and captures with the ids that they have in `into`.
class Inliner {
 public:
  Inliner(Graph& into, const Graph& from, std::span<const ValueId> inputs = {})
      : into_(into), from_(from), ids_(from.values.size(), kNoValue) {
    for (size_t i = 0; i < inputs.size(); ++i) ids_[static_cast<size_t>(from.inputs[i])] = inputs[i];
    for (const Capture& c : from.captures) ids_[static_cast<size_t>(c.inner)] = c.outer;
  }

  void add_nodes(std::vector<Node>& to) {
    for (const auto& [id, tensor] : from_.constants) into_.constants.emplace(mapped(id), tensor);
    for (const Node& node : stoppable(from_.nodes)) to.push_back(copy(node));
  }
  ValueId output(size_t i) { return mapped(from_.outputs[i]); }

 private:
  ValueId mapped(ValueId id) {
    if (id == kNoValue) return id;
    ValueId& to = ids_[static_cast<size_t>(id)];
    if (to == kNoValue) to = into_.add_value(from_.values[static_cast<size_t>(id)].name);
    return to;
  }
  Node copy(const Node& node) {
    Node out = node;
    for (ValueId& id : out.inputs) id = mapped(id);
    for (ValueId& id : out.outputs) id = mapped(id);
    for (auto& [name, attribute] : out.attributes) {
      auto* sub = std::get_if<std::shared_ptr<Graph>>(&attribute);
      if (!sub) continue;
      auto fresh = std::make_shared<Graph>(**sub);
      for (Capture& c : fresh->captures) c.outer = mapped(c.outer);
      fresh->origin = (*sub)->origin ? (*sub)->origin : sub->get();
      *sub = std::move(fresh);
    }
    return out;
  }

  Graph& into_;
  const Graph& from_;
  std::vector<ValueId> ids_;
};

}  // namespace inferkit
