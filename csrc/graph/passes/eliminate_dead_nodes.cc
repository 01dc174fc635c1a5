#include <algorithm>

#include "graph/passes/passes.h"
#include "graph/passes/pattern.h"
#include "graph/topological_sort.h"

namespace inferkit {

bool eliminate_dead_nodes(Graph& graph) {
  bool changed = false;
  std::vector<bool> live(graph.values.size());
  const auto mark = [&](ValueId id) { live[static_cast<size_t>(id)] = true; };
  for (const ValueId id : graph.outputs) mark(id);

  const size_t count = graph.nodes.size();
  std::vector<bool> dead(count);
  for (const size_t i : stoppable_indices(count)) {
    const size_t n = count - 1 - i;
    Node& node = graph.nodes[n];
    dead[n] = std::none_of(node.outputs.begin(), node.outputs.end(),
                           [&](ValueId id) { return id != kNoValue && live[static_cast<size_t>(id)]; });
    if (dead[n]) continue;
    // A subgraph first: what it no longer captures need not live.
    for_each_subgraph(node, [&](Graph& sub) { changed |= eliminate_dead_nodes(sub); });
    for_each_read(node, mark);
  }
  changed |= drop_nodes(graph, dead);
  const auto unread = [&](ValueId id) { return !live[static_cast<size_t>(id)]; };
  changed |= std::erase_if(graph.captures, [&](const Capture& c) { return unread(c.inner); }) > 0;
  changed |= std::erase_if(graph.constants, [&](const auto& c) { return unread(c.first); }) > 0;
  return changed;
}

}  // namespace inferkit
