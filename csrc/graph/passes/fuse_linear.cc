#include "graph/passes/passes.h"
#include "graph/passes/pattern.h"

namespace inferkit {
namespace {

Node linear(const Node& from, ValueId x, ValueId w, bool transposed) {
  Node out;
  out.op_type = "Linear";
  out.domain = kInternalDomain;
  out.name = from.name;
  out.version = 1;
  out.inputs = {x, w};
  out.outputs = from.outputs;
  out.attributes = {{"transB", int64_t{transposed}}};
  return out;
}

const Tensor* matrix(const Rewriter& r, const Node& node) {
  if (node.inputs.size() < 2 || node.inputs[0] == kNoValue || node.outputs.size() != 1) return nullptr;
  const Tensor* w = r.f32_constant(node.inputs[1]);
  return w && w->shape.rank() == 2 ? w : nullptr;
}

/// A constant of one element repeated n times, or the row of n that it is, times `factor`; kNoValue where it is
/// neither. `max_rank`: more dimensions could add some to the result.
ValueId row(Rewriter& r, ValueId id, int64_t n, size_t max_rank, float factor = 1) {
  const Tensor* c = r.f32_constant(id);
  if (!c || c->shape.rank() > max_rank) return kNoValue;
  const int64_t count = c->shape.elements();
  const bool is_row = c->shape.rank() > 0 && c->shape.back() == n && count == n;
  if (is_row && factor == 1)
    return c->shape.rank() == 1 ? id
                                : r.add_constant(r.graph().values[static_cast<size_t>(id)].name + "/row",
                                                 Tensor{c->dtype, {n}, c->data, c->owner});
  if (!is_row && count != 1) return kNoValue;
  std::vector<float> values(static_cast<size_t>(n));
  for (size_t i = 0; i < values.size(); ++i) values[i] = factor * c->as<float>()[is_row ? i : 0];
  return r.add_constant(r.graph().values[static_cast<size_t>(id)].name + "/row",
                        make_tensor<float>({n}, std::span<const float>(values)));
}

void fuse_gemm(Rewriter& r, int n) {
  const Node& gemm = r.node(n);
  const Tensor* w = matrix(r, gemm);
  if (!w || int_attr(gemm, "transA", 0) != 0 || float_attr(gemm, "alpha", 1) != 1) return;
  const bool transposed = int_attr(gemm, "transB", 0) != 0;
  Node out = linear(gemm, gemm.inputs[0], gemm.inputs[1], transposed);
  out.attributes.emplace("rank", int64_t{2});  // unlike MatMul, it takes matrices alone
  const float beta = float_attr(gemm, "beta", 1);
  if (gemm.inputs.size() == 3 && gemm.inputs[2] != kNoValue && beta != 0) {
    const ValueId bias = row(r, gemm.inputs[2], w->shape[transposed ? 0 : 1], 2, beta);
    if (bias == kNoValue) return;
    out.inputs.push_back(bias);
  }
  r.replace(n, std::move(out));
}

void fuse_matmul(Rewriter& r, int n) {
  const Node& matmul = r.node(n);
  if (matrix(r, matmul)) r.replace(n, linear(matmul, matmul.inputs[0], matmul.inputs[1], false));
}

/// A Linear without a bias and an Add of a row after it become one.
void fuse_bias(Rewriter& r, int n) {
  const Node& node = r.node(n);
  if (node.inputs.size() != 2 || node.attributes.contains("activation")) return;
  const ValueId y = node.outputs[0];
  const int add = r.only_reader(y);
  if (add < 0 || !is_op(r.node(add), "Add") || r.node(add).version < 7) return;  // before, Add took an axis
  const ValueId other = Rewriter::other_input(r.node(add), y);
  const bool transposed = int_attr(node, "transB", 0) != 0;
  const Tensor* w = matrix(r, node);
  const ValueId bias = other == kNoValue || !w ? kNoValue : row(r, other, w->shape[transposed ? 0 : 1], 1);
  if (bias == kNoValue) return;
  Node out = linear(node, node.inputs[0], node.inputs[1], transposed);
  if (out.name.empty()) out.name = r.node(add).name;
  out.inputs.push_back(bias);
  out.outputs = r.node(add).outputs;
  r.replace(add, std::move(out));
  r.remove(n);
}

}  // namespace

bool fuse_linear(Graph& graph) {
  Rewriter r(graph);
  for (const int n : r.nodes()) {
    if (is_op(r.node(n), "Gemm")) fuse_gemm(r, n);
    if (is_op(r.node(n), "MatMul")) fuse_matmul(r, n);
    if (r.alive(n) && is_op(r.node(n), "Linear", kInternalDomain)) fuse_bias(r, n);
  }
  return r.finish();
}

}  // namespace inferkit
