#include "graph/draws.h"

#include <algorithm>
#include <iterator>
#include <string>

#include "platform/stoppable.h"

namespace inferkit {
namespace {

void number_from(Graph& graph, int64_t& next) {
  for (Node& node : stoppable(graph.nodes)) {
    if (draws(node)) node.attributes.insert_or_assign(std::string(kDrawPlace), next++);
    for (auto& [name, attribute] : node.attributes) {
      if (auto* subgraph = std::get_if<std::shared_ptr<Graph>>(&attribute)) number_from(**subgraph, next);
    }
  }
}

}  // namespace

bool draws(const Node& node) {
  constexpr std::string_view kDraw[] = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike",
                                        "Multinomial",  "Bernoulli",     "Dropout"};
  return node.domain.empty() && std::ranges::find(kDraw, node.op_type) != std::end(kDraw);
}

void number_draws(Graph& graph) {
  int64_t next = 0;
  number_from(graph, next);
}

}  // namespace inferkit
