#include <array>
#include <cmath>

#include "graph/passes/passes.h"
#include "graph/passes/pattern.h"

namespace inferkit {
namespace {

/// y = scale x + shift for each channel.
struct ChannelAffine {
  std::vector<double> scale, shift;
};

bool is_inference(const Node& bn) {
  for (size_t i = 1; i < bn.outputs.size(); ++i)
    if (bn.outputs[i] != kNoValue) return false;
  if (bn.version >= 14) return !batch_norm_trains(bn);
  if (bn.version < 7 && int_attr(bn, "is_test", 0) == 0) return false;
  return int_attr(bn, "spatial", 1) == 1;
}

std::optional<ChannelAffine> affine_of(const Rewriter& r, const Node& bn) {
  if (!is_op(bn, "BatchNormalization") || bn.inputs.size() != 5 || !is_inference(bn)) return std::nullopt;
  std::array<const float*, 4> p{};
  int64_t channels = -1;
  for (size_t i = 0; i < 4; ++i) {
    const Tensor* t = r.f32_constant(bn.inputs[i + 1]);
    if (!t || t->shape.rank() != 1 || (i > 0 && t->shape[0] != channels)) return std::nullopt;
    channels = t->shape[0];
    p[i] = t->as<float>();
  }
  const auto [gamma, beta, mean, variance] = p;
  const double epsilon = float_attr(bn, "epsilon", 1e-5f);
  ChannelAffine out;
  for (int64_t c = 0; c < channels; ++c) {
    out.scale.push_back(gamma[c] / std::sqrt(variance[c] + epsilon));
    out.shift.push_back(beta[c] - mean[c] * out.scale.back());
    if (!std::isfinite(out.scale.back()) || !std::isfinite(out.shift.back())) return std::nullopt;
  }
  return out;
}

/// How a weight's elements map to output channels: channel = (i / outer) * inner_channels + (i / inner) %
/// inner_channels.
struct WeightLayout {
  int64_t channels = 0;
  int64_t inner = 1;           // elements that share a channel, side by side
  int64_t inner_channels = 1;  // channels before the next outer block
  int64_t outer = 1;           // elements of an outer block
};

std::optional<WeightLayout> layout_of(const Node& node, const Tensor& w) {
  const Shape& s = w.shape;
  if (is_op(node, "Conv") && s.rank() >= 3) {
    const int64_t per_channel = s.elements(1, s.rank());
    return WeightLayout{s[0], per_channel, s[0], s[0] * per_channel};
  }
  if (is_op(node, "ConvTranspose") && s.rank() >= 3) {
    // [C, M/group, k...]: rows of one group share their output channels.
    const int64_t group = int_attr(node, "group", 1);
    if (group < 1 || s[0] % group != 0) return std::nullopt;
    const int64_t taps = s.elements(2, s.rank());
    return WeightLayout{s[1] * group, taps, s[1], s[0] / group * s[1] * taps};
  }
  if (is_op(node, "Gemm") && s.rank() == 2 && int_attr(node, "transA", 0) == 0 && float_attr(node, "alpha", 1) == 1 &&
      float_attr(node, "beta", 1) == 1) {
    const bool transposed = int_attr(node, "transB", 0) != 0;
    return transposed ? WeightLayout{s[0], s[1], s[0], s[0] * s[1]} : WeightLayout{s[1], 1, s[1], s[0] * s[1]};
  }
  return std::nullopt;
}

Tensor scaled_weight(const Tensor& w, const WeightLayout& layout, const std::vector<double>& scale) {
  void* data = nullptr;
  Tensor out = make_tensor(DType::kF32, w.shape, &data);
  for (int64_t i = 0; i < w.shape.elements(); ++i) {
    const int64_t c = i / layout.outer * layout.inner_channels + i / layout.inner % layout.inner_channels;
    static_cast<float*>(data)[i] = static_cast<float>(w.as<float>()[i] * scale[static_cast<size_t>(c)]);
  }
  return out;
}

bool all_finite(const Tensor& t) {
  const float* p = t.as<float>();
  return std::all_of(p, p + t.shape.elements(), [](float v) { return std::isfinite(v); });
}

/// The bias of the node, one for each channel (0 where it has none); nullopt where it is not a constant row.
std::optional<std::vector<double>> bias_of(const Rewriter& r, const Node& node, int64_t channels) {
  std::vector<double> out(static_cast<size_t>(channels), 0.0);
  if (node.inputs.size() < 3 || node.inputs[2] == kNoValue) return out;
  const Tensor* t = r.f32_constant(node.inputs[2]);
  if (!t || t->shape.elements() != channels || t->shape.rank() == 0 || t->shape.back() != channels) return std::nullopt;
  std::copy(t->as<float>(), t->as<float>() + channels, out.begin());
  return out;
}

bool fold_into(Rewriter& r, int n, int bn) {
  const Node& node = r.node(n);
  const Tensor* w = node.inputs.size() >= 2 ? r.f32_constant(node.inputs[1]) : nullptr;
  if (!w) return false;
  const auto layout = layout_of(node, *w);
  const auto affine = affine_of(r, r.node(bn));
  if (!layout || !affine || w->shape.elements() == 0) return false;
  if (affine->scale.size() != static_cast<size_t>(layout->channels)) return false;
  const auto bias = bias_of(r, node, layout->channels);
  if (!bias) return false;

  void* data = nullptr;
  Tensor new_bias = make_tensor(DType::kF32, {layout->channels}, &data);
  for (size_t c = 0; c < bias->size(); ++c)
    static_cast<float*>(data)[c] = static_cast<float>((*bias)[c] * affine->scale[c] + affine->shift[c]);
  Tensor new_w = scaled_weight(*w, *layout, affine->scale);
  // What only folding would make infinite must stay as it is.
  if (!all_finite(new_w) || !all_finite(new_bias)) return false;

  Node folded = node;
  folded.outputs = {r.node(bn).outputs[0]};
  const std::string name = r.graph().values[static_cast<size_t>(node.inputs[1])].name;
  folded.inputs.resize(3, kNoValue);
  folded.inputs[1] = r.add_constant(name + "/folded", std::move(new_w));
  folded.inputs[2] = r.add_constant(name + "/folded_bias", std::move(new_bias));
  r.replace(bn, std::move(folded));
  r.remove(n);
  return true;
}

}  // namespace

bool fold_batch_norm(Graph& graph) {
  Rewriter r(graph);
  for (const int bn : r.nodes()) {
    if (!is_op(r.node(bn), "BatchNormalization") || r.node(bn).inputs.empty() || r.node(bn).inputs[0] == kNoValue)
      continue;
    const ValueId x = r.node(bn).inputs[0];
    const int n = r.producer_index(x);
    if (n >= 0 && r.only_reader(x) == bn) fold_into(r, n, bn);
  }
  return r.finish();
}

}  // namespace inferkit
