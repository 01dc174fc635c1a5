// CausalConvWithState: every channel is convolved with its own kernel over the current and the past positions.
#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/common/convert.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/parallel.h"
#include "kernels/cpu/vmath/vmath.h"
#include "kernels/summation.h"

namespace inferkit {
namespace {

constexpr TypeSet kTypes = types(DType::kF32, DType::kF16, DType::kBF16);
enum Input : size_t { kX, kWeight, kBias, kPast };

struct CausalConvParams {
  int64_t batch, channels, length, kernel;
  bool silu;
};

/// y += w x for n elements that lie apart.
void add_scaled(float w, const float* __restrict x, float* __restrict y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += w * x[i];
}

constexpr int64_t kBlock = 256;  // of positions: they stay in L1

/// y[i] = start + the sum of w[j] x[i + j], for n <= kBlock positions; the first chunk of taps goes on from `start`.
void add_taps(const float* x, const float* w, int64_t taps, float start, float* y, int64_t n) {
  const int64_t chunk = kernels::sum_chunk(taps);
  std::fill_n(y, n, start);
  for (int64_t j = 0; j < chunk; ++j) add_scaled(w[j], x + j, y, n);
  for (int64_t first = chunk; first < taps; first += chunk) {
    float part[kBlock];
    std::fill_n(part, n, 0.0f);
    for (int64_t j = first; j < std::min(taps, first + chunk); ++j) add_scaled(w[j], x + j, part, n);
    for (int64_t i = 0; i < n; ++i) y[i] += part[i];
  }
}

/// io: y, present, x, weight, bias, past, room for a padded row per row.
void causal_conv_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const CausalConvParams*>(params);
  const auto at = [&](size_t i) { return reinterpret_cast<float*>(io[i]); };
  const int64_t lead = p.kernel - 1, padded = lead + p.length;
  const auto run = [&](int64_t row) {
    WorkMeter meter;
    const int64_t channel = row % p.channels;
    float *x = at(6) + row * padded, *y = at(0) + row * p.length;
    if (io[5]) {
      std::copy_n(at(5) + row * lead, lead, x);
    } else {
      std::fill_n(x, lead, 0.0f);
    }
    std::copy_n(at(2) + row * p.length, p.length, x + lead);
    if (io[1]) std::copy_n(x + p.length, lead, at(1) + row * lead);
    if (!io[0]) return;
    const float* w = at(3) + channel * p.kernel;
    for (int64_t first = 0; first < p.length && meter.go_on(kBlock * p.kernel); first += kBlock) {
      add_taps(x + first, w, p.kernel, io[4] ? at(4)[channel] : 0.0f, y + first, std::min(kBlock, p.length - first));
    }
    if (p.silu) kernels::unary_fn(kernels::Unary::kSilu)(y, y, p.length, 1, 0);
  };
  const int64_t each = std::max<int64_t>(1, p.length * (p.kernel + 2));
  for_ranges(context, p.batch * p.channels, (int64_t{1} << 16) / each, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) run(row);
  });
}

CausalConvParams read_params(const NodeContext& c) {
  const std::string activation = c.attr_string("activation", "none");
  const bool silu = activation == "silu" || activation == "swish";
  if (!silu && activation != "none") c.unsupported(cat("activation '", activation, "'"));
  const Shape &x = c.input(kX).shape, &w = c.input(kWeight).shape;
  if (x.rank() != 3 || w.rank() != 3 || w[0] != x[1] || w[1] != 1 || w[2] < 1) {
    c.fail(cat("an input of shape ", x.str(), " and kernels of shape ", w.str()));
  }
  const CausalConvParams p{x[0], x[1], x[2], w[2], silu};
  if (c.has_input(kBias) && c.input(kBias).shape != Shape{p.channels}) {
    c.fail(cat("a bias of shape ", c.input(kBias).shape.str(), " for ", counted(p.channels, "channel")));
  }
  if (c.has_input(kPast) && c.input(kPast).shape != Shape{p.batch, p.channels, p.kernel - 1}) {
    c.fail(cat("past_state has shape ", c.input(kPast).shape.str()));
  }
  return p;
}

void infer_causal_conv(InferContext& c) {
  require_type(c, kX, kTypes);
  for (const size_t i : {kWeight, kBias, kPast}) {
    if (c.has_input(i)) require_same_type(c, kX, i);
  }
  const CausalConvParams p = read_params(c);
  c.set_output(0, c.input(kX).dtype, c.input(kX).shape);
  if (c.has_output(1)) c.set_output(1, c.input(kX).dtype, {p.batch, p.channels, p.kernel - 1});
}

void lower_causal_conv(LowerContext& c) {
  const CausalConvParams p = read_params(c);
  const auto input = [&](size_t i) {
    if (!c.has_input(i)) return Ref{};
    return converted(c, c.in(i), c.input(i).dtype, DType::kF32, c.input(i).shape.elements());
  };
  const Ref y = begin_output(c, 0, DType::kF32);
  const Ref present = c.has_output(1) ? begin_output(c, 1, DType::kF32) : Ref{};
  const int64_t padded = p.batch * p.channels * (p.kernel - 1 + p.length);
  c.step(causal_conv_step, p,
         {y, present, input(kX), input(kWeight), input(kBias), input(kPast),
          c.scratch(static_cast<size_t>(padded) * sizeof(float))},
         multiplied(padded, p.kernel) / 4);
  end_output(c, 0, y, DType::kF32);
  end_output(c, 1, present, DType::kF32);
}

}  // namespace

void register_causal_conv(OpRegistry& r) {
  r.add({.name = "CausalConvWithState",
         .since = 27,
         .min_inputs = 2,
         .max_inputs = 4,
         .max_outputs = 2,
         .infer = infer_causal_conv,
         .mixed_axes = behind_first_axis},
        lower_causal_conv);
}

}  // namespace inferkit
