// Products by a transposed constant, as PyTorch writes a layer of [N, K] weights: MatMul(x, Transpose(w)). Kernels pack
// w either way, so that no transposed copy of it is needed.
#include "graph/passes/passes.h"
#include "graph/passes/pattern.h"

namespace inferkit {
namespace {

/// The constant matrix that `id` is the transpose of; kNoValue where it is none.
ValueId transposed_matrix(const Rewriter& r, ValueId id) {
  const Node* node = r.producer(id);
  if (!node || !is_op(*node, "Transpose") || node->inputs.size() != 1) return kNoValue;
  const Tensor* w = r.f32_constant(node->inputs[0]);
  if (!w || w->shape.rank() != 2) return kNoValue;
  const auto perm = node->attributes.find("perm");
  if (perm == node->attributes.end()) return node->inputs[0];
  const auto* axes = std::get_if<std::vector<int64_t>>(&perm->second);
  return axes && *axes == std::vector<int64_t>{1, 0} ? node->inputs[0] : kNoValue;
}

}  // namespace

bool read_transposed(Graph& graph) {
  Rewriter r(graph);
  for (const int n : r.nodes()) {
    const Node& node = r.node(n);
    const bool gemm = is_op(node, "Gemm");
    if ((!gemm && !is_op(node, "MatMul")) || node.inputs.size() < 2 || node.outputs.size() != 1) continue;
    const ValueId w = transposed_matrix(r, node.inputs[1]);
    if (w == kNoValue || node.inputs[0] == kNoValue) continue;
    Node out = node;
    out.inputs[1] = w;
    if (gemm) {
      out.attributes.insert_or_assign("transB", int64_t{int_attr(node, "transB", 0) == 0});
    } else {
      out.op_type = "Linear";
      out.domain = kInternalDomain;
      out.version = 1;
      out.attributes = {{"transB", int64_t{1}}};
    }
    r.replace(n, std::move(out));
  }
  bool changed = r.finish();
  if (changed) eliminate_dead_nodes(graph);
  for_each_subgraph(graph, [&](Graph& sub) { changed |= read_transposed(sub); });
  return changed;
}

}  // namespace inferkit
