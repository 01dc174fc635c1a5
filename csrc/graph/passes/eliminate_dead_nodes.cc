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

  std::vector<bool> keep(graph.nodes.size());
  for (size_t n = graph.nodes.size(); n-- > 0;) {
    Node& node = graph.nodes[n];
    keep[n] = std::any_of(node.outputs.begin(), node.outputs.end(),
                          [&](ValueId id) { return id != kNoValue && live[static_cast<size_t>(id)]; });
    if (!keep[n]) continue;
    // A subgraph first: what it no longer captures need not live.
    for_each_subgraph(node, [&](Graph& sub) { changed |= eliminate_dead_nodes(sub); });
    for_each_read(node, mark);
  }
  size_t kept = 0;
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    if (!keep[n]) continue;
    if (kept != n) graph.nodes[kept] = std::move(graph.nodes[n]);
    ++kept;
  }
  changed |= kept != graph.nodes.size();
  graph.nodes.resize(kept);
  const auto unread = [&](ValueId id) { return !live[static_cast<size_t>(id)]; };
  changed |= std::erase_if(graph.captures, [&](const Capture& c) { return unread(c.inner); }) > 0;
  changed |= std::erase_if(graph.constants, [&](const auto& c) { return unread(c.first); }) > 0;
  return changed;
}

}  // namespace inferkit
