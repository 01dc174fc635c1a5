#include <cmath>
#include <limits>

#include "graph/passes/passes.h"
#include "graph/passes/pattern.h"

namespace inferkit {
namespace {

struct Activation {
  std::string name;
  float alpha = 0, beta = 0;
};

/// Clip's bounds: attributes before opset 11, then inputs, which must be constant here. What is left out does not
/// bound; NaN, which makes every result one, is left to the operator.
std::optional<Activation> clip(const Rewriter& r, const Node& node) {
  using Limits = std::numeric_limits<float>;
  float bounds[2] = {-Limits::infinity(), Limits::infinity()};
  if (node.version < 11) {
    bounds[0] = float_attr(node, "min", Limits::lowest());
    bounds[1] = float_attr(node, "max", Limits::max());
  }
  for (size_t i = 1; i < node.inputs.size() && i < 3; ++i) {
    if (node.inputs[i] == kNoValue) continue;
    const auto v = r.f32_scalar(node.inputs[i]);
    if (!v) return std::nullopt;
    bounds[i - 1] = *v;
  }
  if (std::isnan(bounds[0]) || std::isnan(bounds[1])) return std::nullopt;
  return Activation{"Clip", bounds[0], bounds[1]};
}

std::optional<Activation> onnx_activation(const Rewriter& r, const Node& node) {
  const std::string& op = node.op_type;
  if (op == "Relu" || op == "Sigmoid" || op == "Tanh" || op == "HardSwish") return Activation{op};
  if (op == "LeakyRelu") return Activation{op, float_attr(node, "alpha", 0.01f)};
  if (op == "Elu") return Activation{op, float_attr(node, "alpha", 1)};
  if (op == "HardSigmoid") return Activation{op, float_attr(node, "alpha", 0.2f), float_attr(node, "beta", 0.5f)};
  if (op == "Clip") return clip(r, node);
  if (op == "Swish" && float_attr(node, "alpha", 1) == 1) return Activation{"Silu"};
  if (op == "Gelu" && !node.attributes.contains(kKeepsTail)) {
    const std::string form = string_attr(node, "approximate", "none");
    if (form == "none") return Activation{"Gelu"};
    if (form == "tanh") return Activation{"GeluTanh"};
  }
  return std::nullopt;
}

std::optional<Activation> activation_of(const Rewriter& r, const Node& node) {
  if (node.inputs.empty() || node.outputs.size() != 1) return std::nullopt;
  if (node.domain.empty()) return onnx_activation(r, node);
  if (is_op(node, "Gelu", kInternalDomain) || is_op(node, "Silu", kInternalDomain)) return Activation{node.op_type};
  return std::nullopt;
}

bool can_take_activation(const Rewriter& r, const Node& node) {
  if (node.attributes.contains("activation")) return false;
  if (is_op(node, "Linear", kInternalDomain)) return true;
  return is_op(node, "Conv") && node.inputs.size() >= 2 && r.f32_constant(node.inputs[1]);
}

}  // namespace

bool fuse_activation(Graph& graph) {
  Rewriter r(graph);
  for (const int n : r.nodes()) {
    if (!r.alive(n) || !can_take_activation(r, r.node(n)) || r.node(n).outputs.size() != 1) continue;
    const ValueId y = r.node(n).outputs[0];
    const int reader = y == kNoValue ? -1 : r.only_reader(y);
    if (reader < 0 || r.node(reader).inputs.empty() || r.node(reader).inputs[0] != y) continue;
    const auto activation = activation_of(r, r.node(reader));
    if (!activation) continue;
    Node fused = r.node(n);
    fused.domain = kInternalDomain;
    fused.attributes["activation"] = activation->name;
    fused.attributes["activation_alpha"] = activation->alpha;
    fused.attributes["activation_beta"] = activation->beta;
    fused.outputs = r.node(reader).outputs;
    r.replace(reader, std::move(fused));
    r.remove(n);
  }
  return r.finish();
}

}  // namespace inferkit
