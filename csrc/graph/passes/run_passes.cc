#include "graph/passes/fuse_tokens.h"
#include "graph/passes/passes.h"
#include "graph/passes/pattern.h"
#include "platform/run_control.h"

namespace inferkit {

void run_passes(Graph& graph) {
  // Patterns of several nodes before the passes that would take one of those nodes away; dead nodes go at once, so that
  // they do not count as readers.
  constexpr bool (*kPasses[])(Graph&) = {lift_constants, eliminate_identity, sink_transposes, fuse_gelu,
                                         fuse_silu,      fuse_layer_norm,    fold_bias,       fold_batch_norm,
                                         fuse_linear,    fuse_activation,    fuse_tokens};
  constexpr int kMaxRounds = 8;
  eliminate_dead_nodes(graph);
  bool changed = true;
  for (int round = 0; changed && round < kMaxRounds; ++round) {
    changed = false;
    for (const auto pass : kPasses) {
      RunControl::check();
      if (!pass(graph)) continue;
      eliminate_dead_nodes(graph);
      changed = true;
    }
  }
  for_each_subgraph(graph, [](Graph& sub) { run_passes(sub); });
}

}  // namespace inferkit
