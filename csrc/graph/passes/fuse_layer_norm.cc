#include "graph/passes/passes.h"
#include "graph/passes/pattern.h"

namespace inferkit {
namespace {

bool is_mean_over_last_axis(const Rewriter& r, const Node* n) {
  if (!n || !is_op(*n, "ReduceMean") || int_attr(*n, "keepdims", 1) != 1 ||
      int_attr(*n, "noop_with_empty_axes", 0) != 0)
    return false;
  if (n->inputs.size() == 2) return r.int_constant(n->inputs[1]) == std::vector<int64_t>{-1};
  const auto it = n->attributes.find("axes");
  const auto* axes = it == n->attributes.end() ? nullptr : std::get_if<std::vector<int64_t>>(&it->second);
  return axes && *axes == std::vector<int64_t>{-1};
}

/// `id` = x - mean(x): x. kNoValue elsewhere.
ValueId centred(const Rewriter& r, ValueId id) {
  const Node* sub = r.producer(id);
  if (!sub || !is_op(*sub, "Sub") || sub->inputs.size() != 2) return kNoValue;
  const Node* mean = r.producer(sub->inputs[1]);
  return is_mean_over_last_axis(r, mean) && mean->inputs[0] == sub->inputs[0] ? sub->inputs[0] : kNoValue;
}

/// `id` = d squared, where d is x - mean(x).
bool is_square_of_centred(const Rewriter& r, ValueId id, ValueId x) {
  const Node* n = r.producer(id);
  if (!n || n->inputs.size() != 2 || centred(r, n->inputs[0]) != x) return false;
  if (is_op(*n, "Pow")) return r.is_number(n->inputs[1], 2, 1);
  return is_op(*n, "Mul") && centred(r, n->inputs[1]) == x;
}

struct Match {
  ValueId x = kNoValue;
  float epsilon = 0;
};

/// Node n = (x - mean) / sqrt(mean((x - mean)^2) + epsilon).
std::optional<Match> match_division(const Rewriter& r, const Node& n) {
  if (!is_op(n, "Div") || n.inputs.size() != 2) return std::nullopt;
  Match m;
  m.x = centred(r, n.inputs[0]);
  const Node* root = r.producer(n.inputs[1]);
  if (m.x == kNoValue || !root || !is_op(*root, "Sqrt")) return std::nullopt;
  const Node* add = r.producer(root->inputs[0]);
  if (!add || !is_op(*add, "Add") || add->inputs.size() != 2) return std::nullopt;
  for (const ValueId side : add->inputs) {
    const ValueId other = Rewriter::other_input(*add, side);
    const Node* variance = r.producer(side);
    const auto epsilon = other == kNoValue ? std::nullopt : r.f32_scalar(other);
    if (!epsilon || r.graph().constant(other)->shape.rank() > 1) continue;
    if (!is_mean_over_last_axis(r, variance) || !is_square_of_centred(r, variance->inputs[0], m.x)) continue;
    m.epsilon = *epsilon;
    return m;
  }
  return std::nullopt;
}

/// The one node after `id` if it is `op` with a constant vector of `length` (any, where 0) elements; else -1.
int affine_step(const Rewriter& r, ValueId id, std::string_view op, int64_t length) {
  const int n = r.only_reader(id);
  if (n < 0 || !is_op(r.node(n), op) || r.node(n).version < 7) return -1;
  const Tensor* c = r.f32_constant(Rewriter::other_input(r.node(n), id));
  const bool fits = c && c->shape.rank() == 1 && c->shape[0] > 1 && (length == 0 || c->shape[0] == length);
  return fits ? n : -1;
}

}  // namespace

bool fuse_layer_norm(Graph& graph) {
  Rewriter r(graph);
  for (const int n : r.nodes()) {
    if (!r.alive(n)) continue;
    const auto match = match_division(r, r.node(n));
    if (!match) continue;
    const ValueId quotient = r.node(n).outputs[0];
    Node norm;
    norm.op_type = "LayerNorm";
    norm.domain = kInternalDomain;
    norm.version = 1;
    norm.inputs = {match->x};
    norm.attributes = {{"axis", int64_t{-1}}, {"epsilon", match->epsilon}};
    const int scale = affine_step(r, quotient, "Mul", 0);
    if (scale < 0) {  // none, or one that is computed: it stays, and so does what is added
      norm.name = r.node(n).name;
      norm.outputs = r.node(n).outputs;
      r.replace(n, std::move(norm));
      continue;
    }
    const ValueId scaled = r.node(scale).outputs[0];
    norm.inputs.push_back(Rewriter::other_input(r.node(scale), quotient));
    const int bias = affine_step(r, scaled, "Add", graph.constant(norm.inputs[1])->shape[0]);
    if (bias >= 0) norm.inputs.push_back(Rewriter::other_input(r.node(bias), scaled));
    const int last = bias >= 0 ? bias : scale;
    norm.name = r.node(last).name;
    norm.outputs = r.node(last).outputs;
    r.replace(last, std::move(norm));
    r.remove(n);
    if (last != scale) r.remove(scale);
  }
  return r.finish();
}

}  // namespace inferkit
