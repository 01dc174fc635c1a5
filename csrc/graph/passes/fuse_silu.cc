#include "graph/passes/passes.h"
#include "graph/passes/pattern.h"

namespace inferkit {

bool fuse_silu(Graph& graph) {
  Rewriter r(graph);
  for (const int n : r.nodes()) {
    if (!r.alive(n) || !is_op(r.node(n), "Sigmoid") || r.node(n).inputs.size() != 1) continue;
    const ValueId x = r.node(n).inputs[0], s = r.node(n).outputs[0];
    const int mul = r.only_reader(s);
    if (mul < 0 || !is_op(r.node(mul), "Mul") || Rewriter::other_input(r.node(mul), s) != x || !r.is_f32(x)) continue;
    Node silu;
    silu.op_type = "Silu";
    silu.domain = kInternalDomain;
    silu.name = r.node(mul).name;
    silu.version = 1;
    silu.inputs = {x};
    silu.outputs = r.node(mul).outputs;
    r.replace(mul, std::move(silu));
    r.remove(n);
  }
  return r.finish();
}

}  // namespace inferkit
