#include "graph/topological_sort.h"

#include <functional>
#include <queue>

#include "base/error.h"
#include "platform/stoppable.h"

namespace inferkit {
namespace {

constexpr int kNobody = -1;

std::vector<int> producers_of(const Graph& graph) {
  std::vector<int> producers(graph.values.size(), kNobody);
  for (const size_t n : stoppable_indices(graph.nodes.size()))
    for (const ValueId id : graph.nodes[n].outputs)
      if (id != kNoValue) producers[static_cast<size_t>(id)] = static_cast<int>(n);
  return producers;
}

bool is_sorted(const Graph& graph, const std::vector<int>& producers) {
  for (const size_t n : stoppable_indices(graph.nodes.size())) {
    bool ready = true;
    for_each_read(graph.nodes[n],
                  [&](ValueId id) { ready &= producers[static_cast<size_t>(id)] < static_cast<int>(n); });
    if (!ready) return false;
  }
  return true;
}

/// Every node left reads from a node left, so walking from reader to producer must come back to one already seen.
[[noreturn]] void fail_with_cycle(const Graph& graph, const std::vector<int>& producers,
                                  const std::vector<int>& waiting) {
  std::vector<bool> seen(graph.nodes.size());
  int at = 0;
  while (waiting[static_cast<size_t>(at)] == 0) ++at;
  while (!seen[static_cast<size_t>(at)]) {
    seen[static_cast<size_t>(at)] = true;
    int before = at;
    for_each_read(graph.nodes[static_cast<size_t>(at)], [&](ValueId id) {
      const int producer = producers[static_cast<size_t>(id)];
      if (producer != kNobody && waiting[static_cast<size_t>(producer)] > 0) before = producer;
    });
    at = before;
  }
  throw Error(ErrorCode::kModel, cat("the graph has a cycle through ", graph.nodes[static_cast<size_t>(at)].label()));
}

}  // namespace

void sort_topologically(Graph& graph) {
  const std::vector<int> producers = producers_of(graph);
  if (is_sorted(graph, producers)) return;

  const size_t count = graph.nodes.size();
  std::vector<int> waiting(count, 0);  // reads whose producer has not come yet
  std::vector<std::vector<int>> readers(count);
  for (const size_t n : stoppable_indices(count)) {
    for_each_read(graph.nodes[n], [&](ValueId id) {
      const int producer = producers[static_cast<size_t>(id)];
      if (producer == kNobody) return;
      ++waiting[n];
      readers[static_cast<size_t>(producer)].push_back(static_cast<int>(n));
    });
  }
  std::priority_queue<int, std::vector<int>, std::greater<>> ready;
  for (const size_t n : stoppable_indices(count))
    if (waiting[n] == 0) ready.push(static_cast<int>(n));
  std::vector<Node> sorted;
  sorted.reserve(count);
  std::vector<int> order;
  for ([[maybe_unused]] const size_t done : stoppable_indices(count)) {
    if (ready.empty()) fail_with_cycle(graph, producers, waiting);
    const int n = ready.top();
    ready.pop();
    order.push_back(n);
    for (const int reader : readers[static_cast<size_t>(n)])
      if (--waiting[static_cast<size_t>(reader)] == 0) ready.push(reader);
  }
  for (const int n : stoppable(order)) sorted.push_back(std::move(graph.nodes[static_cast<size_t>(n)]));
  graph.nodes = std::move(sorted);
}

}  // namespace inferkit
