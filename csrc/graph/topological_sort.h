// The order in which nodes can run.
#pragma once
#include <vector>

#include "graph/ir.h"

namespace inferkit {

/// Calls visit(ValueId) for every value of `graph` that the node reads: its inputs, and what its subgraphs capture.
template <class Visit>
void for_each_read(const Node& node, Visit&& visit) {
  for (const ValueId id : node.inputs)
    if (id != kNoValue) visit(id);
  for (const auto& [name, attribute] : node.attributes) {
    if (const auto* sub = std::get_if<std::shared_ptr<Graph>>(&attribute))
      for (const Capture& c : (*sub)->captures) visit(c.outer);
  }
}

/// Whether `is_it(node)` holds of every node of `graph` that reads the value, which is no output of the graph.
template <class IsIt>
bool is_read_only_by(const Graph& graph, ValueId value, IsIt&& is_it) {
  for (const ValueId id : graph.outputs)
    if (id == value) return false;
  for (const Node& node : graph.nodes) {
    bool reads = false;
    for_each_read(node, [&](ValueId id) { reads = reads || id == value; });
    if (reads && !is_it(node)) return false;
  }
  return true;
}

/// Orders graph.nodes so that each comes after the nodes whose outputs it reads; among those that could come next, the
/// earliest in the present order does. Does nothing where the order is already right; subgraphs are not entered.
/// Throws Error(kModel) that names a node on a cycle.
void sort_topologically(Graph& graph);

}  // namespace inferkit
