// LayerNormalization, RMSNormalization, InstanceNormalization, GroupNormalization, and our own LayerNorm, into which
// passes turn its spelled-out forms: each normalises contiguous rows, then scales and shifts.
#include <algorithm>
#include <array>
#include <cmath>

#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/common/strided_copy.h"
#include "engine/ops/dispatch.h"
#include "kernels/cpu/affine/affine.h"
#include "kernels/cpu/row/row.h"
#include "platform/run_control.h"
#include "platform/thread_pool.h"

namespace inferkit {
namespace {

/// Element j of row r takes entry (r % groups) * per_group + j / inner of scale and bias.
struct NormParams {
  int64_t rows = 0, n = 0;
  int64_t groups = 1, per_group = 1, inner = 1;
  float epsilon = 0;
  bool center = true;  // false: root mean square alone
};

constexpr int64_t kParallelElements = 1 << 17;
constexpr int64_t kMeteredElements = 1 << 14;  // between two looks at whether to go on

struct Moments {
  double mean, inverse;  // 1 / sqrt(variance + epsilon)
};

/// In double and in two passes, in order.
template <class T>
Moments moments(const NormParams& p, const T* x) {
  double sum = 0, squares = 0;
  for (int64_t j = 0; p.center && j < p.n; ++j) sum += static_cast<double>(load(x[j]));
  const double mean = sum / static_cast<double>(p.n);
  for (int64_t j = 0; j < p.n; ++j) {
    const double d = static_cast<double>(load(x[j])) - mean;
    squares += d * d;
  }
  return {mean, 1 / std::sqrt(squares / static_cast<double>(p.n) + static_cast<double>(p.epsilon))};
}

/// io: x, y, scale, bias (may be null), then for LayerNormalization mean and inverse deviation (null where unread).
template <class T>
void run_generic(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const NormParams*>(params);
  const T *scale = reinterpret_cast<const T*>(io[2]), *bias = reinterpret_cast<const T*>(io[3]);
  WorkMeter meter;
  for (int64_t r = 0; r < p.rows && meter.go_on(4 * p.n); ++r) {
    const T* x = reinterpret_cast<const T*>(io[0]) + r * p.n;
    T* y = reinterpret_cast<T*>(io[1]) + r * p.n;
    const Moments m = moments(p, x);
    const int64_t base = r % p.groups * p.per_group;
    for (int64_t j = 0; j < p.n; ++j) {
      double v = (static_cast<double>(load(x[j])) - m.mean) * m.inverse;
      v *= static_cast<double>(load(scale[base + j / p.inner]));
      if (bias) v += static_cast<double>(load(bias[base + j / p.inner]));
      y[j] = store<T>(static_cast<Compute<T>>(v));
    }
  }
}

/// io: x, mean, inverse deviation; each output may be null.
template <class T>
void run_moments(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const NormParams*>(params);
  WorkMeter meter;
  for (int64_t r = 0; r < p.rows && meter.go_on(2 * p.n); ++r) {
    const Moments m = moments(p, reinterpret_cast<const T*>(io[0]) + r * p.n);
    if (io[1]) reinterpret_cast<float*>(io[1])[r] = static_cast<float>(m.mean);
    if (io[2]) reinterpret_cast<float*>(io[2])[r] = static_cast<float>(m.inverse);
  }
}

void run_f32(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const NormParams*>(params);
  // Either may be null.
  const float *scale = reinterpret_cast<const float*>(io[2]), *bias = reinterpret_cast<const float*>(io[3]);
  const auto norm = p.center ? kernels::layer_norm_rows : kernels::rms_norm_rows;
  const auto affine = kernels::affine_kernels().scalar;
  const bool together = p.inner == 1 && p.groups == 1;  // all rows have the same scale and bias
  const auto some = [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; r = together ? last : r + 1) {
      kernels::NormArgs args;
      args.x = reinterpret_cast<const float*>(io[0]) + r * p.n;
      args.y = reinterpret_cast<float*>(io[1]) + r * p.n;
      args.n = p.n;
      args.rows = together ? last - r : 1;
      args.epsilon = p.epsilon;
      const int64_t base = r % p.groups * p.per_group;
      if (p.inner == 1) {
        args.scale = scale + base;
        if (bias) args.bias = bias + base;
        norm(args);
        continue;
      }
      norm(args);
      for (int64_t k = 0; k < p.n / p.inner; ++k) {
        float* part = args.y + k * p.inner;
        affine(part, part, p.inner, scale[base + k], bias ? bias[base + k] : 0.0f);
      }
    }
  };
  if (context.pool && context.max_threads > 1 && p.rows * p.n >= kParallelElements) {
    const int64_t block = std::max<int64_t>(1, (kParallelElements / 4) / p.n);
    context.pool->parallel_for((p.rows + block - 1) / block, context.max_threads,
                               [&](int64_t i) { some(i * block, std::min(p.rows, (i + 1) * block)); });
  } else {
    const int64_t block = std::max<int64_t>(1, kMeteredElements / p.n);
    WorkMeter meter;
    for (int64_t r = 0; r < p.rows && meter.go_on(block * p.n); r += block) some(r, std::min(p.rows, r + block));
  }
}

void lower_norm(LowerContext& c, const NormParams& p, Ref scale, Ref bias) {
  const DType dtype = c.input(0).dtype;
  if (p.rows * p.n == 0) return;
  const StepFn fn =
      dtype == DType::kF32 ? run_f32 : dispatch<kFloatTypes>(dtype, []<class T>() -> StepFn { return run_generic<T>; });
  c.in_place(0, 0);
  c.step(fn, p, {c.in(0), c.out(0), scale, bias}, multiplied(p.rows, p.n) * (dtype == DType::kF32 ? 0.2 : 5));
}

void require_float_inputs(const NodeContext& c) {
  require_type(c, 0, kFloatTypes);
  for (size_t i = 1; i < 3; ++i) {
    if (!c.has_input(i)) continue;
    if (c.knows(i) && c.input(i).dtype != c.input(0).dtype)
      c.unsupported("a scale or bias of another type than the input");
  }
}

/// Scale and bias must have exactly `count` elements, at the end of their shape.
void require_parameters(const NodeContext& c, int64_t count, const std::string& what) {
  for (size_t i = 1; i < 3; ++i) {
    if (!c.has_input(i)) continue;
    const Shape& s = c.input(i).shape;
    if (s.elements() != count)
      c.fail(cat("input ", i, " has shape ", s.str(), "; expected ", counted(count, "value"), ", ", what));
  }
}

// ---- LayerNormalization and RMSNormalization ------------------------------------------------------------------------

size_t norm_axis(const NodeContext& c) {
  return static_cast<size_t>(c.attr_axis(-1, static_cast<int64_t>(c.input(0).shape.rank())));
}

Axes mixed_by_layer_norm(const NodeContext& c, size_t i) {
  return i == 0 ? static_cast<Axes>(~((1u << norm_axis(c)) - 1)) : Axes{0};
}

/// A spelled-out normalization of rows of one element, which its scale then stretches: a pass cannot see the one.
bool stretches(const NodeContext& c) {
  const Shape& x = c.input(0).shape;
  return c.has_input(1) && c.node().domain == kInternal && x.rank() > 0 && x.back() == 1 &&
         c.input(1).shape.elements() != 1;
}

/// io: x, y, scale, bias (may be null).
void run_stretched(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const NormParams*>(params);
  const auto* x = reinterpret_cast<const float*>(io[0]);
  auto* y = reinterpret_cast<float*>(io[1]);
  const float *scale = reinterpret_cast<const float*>(io[2]), *bias = reinterpret_cast<const float*>(io[3]);
  WorkMeter meter;
  for (int64_t r = 0; r < p.rows && meter.go_on(p.n); ++r) {
    const float d = x[r] - x[r];  // 0, or NaN
    const float v = d / std::sqrt(d * d + p.epsilon);
    for (int64_t j = 0; j < p.n; ++j) y[r * p.n + j] = v * scale[j] + (bias ? bias[j] : 0.0f);
  }
}

void infer_layer_norm(InferContext& c) {
  const bool gives_stats = c.has_output(1) || c.has_output(2);
  if (gives_stats && c.attr_int("stash_type", 1) != 1) c.unsupported("a stash_type other than float32");
  require_float_inputs(c);
  const TensorFacts& x = c.input(0);
  const bool fused = c.node().domain == kInternal;
  if (fused && !c.has_input(1) && x.dtype != DType::kF32) {
    c.fail(cat("an input of ", dtype_name(x.dtype), " and an epsilon of float32"));
  }
  const size_t axis = norm_axis(c);
  if (stretches(c)) {
    Shape y = x.shape;
    y[axis] = c.input(1).shape.elements();
    return c.set_output(0, x.dtype, y);
  }
  for (size_t i = 1; i < 3; ++i) {
    if ((i == 2 || fused) && !c.has_input(i)) continue;
    if (broadcast(c.input(i).shape, x.shape) != x.shape)
      c.fail(cat("input ", i, " of shape ", c.input(i).shape.str(), " does not broadcast to ", x.shape.str()));
  }
  c.set_output(0, x.dtype, x.shape);
  Shape stats = x.shape;
  for (size_t i = axis; i < stats.rank(); ++i) stats[i] = 1;
  for (size_t i = 1; i < 3; ++i) {
    if (c.has_output(i)) c.set_output(i, DType::kF32, stats);
  }
}

/// Scale and bias as the rows read them, spelled out where they are broadcast: to one row, or to each row its own.
std::array<Ref, 2> spelled_out(LowerContext& c, NormParams& p, size_t axis) {
  const Shape& x = c.input(0).shape;
  const Shape row(x.dims().subspan(axis));
  const auto lead = [&](size_t i) { return c.input(i).shape.rank() - std::min(c.input(i).shape.rank(), row.rank()); };
  bool own = false;
  for (size_t i = 1; i < 3 && c.has_input(i); ++i) own = own || c.input(i).shape.elements(0, lead(i)) != 1;
  if (own) {
    p.groups = p.rows;
    p.per_group = p.n;
  }
  const Shape& to = own ? x : row;
  std::array<Ref, 2> out;
  for (size_t i = 1; i < 3 && c.has_input(i); ++i) {
    const Shape& s = c.input(i).shape;
    out[i - 1] = c.in(i);
    if (repeats_nothing(s, to)) continue;
    const Shape from(s.dims().subspan(own ? 0 : lead(i)));
    out[i - 1] = c.scratch(static_cast<size_t>(to.elements()) * dtype_size(c.input(0).dtype));
    lower_strided_copy(c, c.in(i), out[i - 1], c.input(0).dtype, to, broadcast_strides(from, to));
  }
  return out;
}

void lower_layer_norm(LowerContext& c) {
  const Shape& x = c.input(0).shape;
  const size_t axis = norm_axis(c);
  NormParams p;
  p.rows = x.elements(0, axis);
  p.n = p.per_group = x.elements(axis, x.rank());
  p.epsilon = c.attr_float("epsilon", 1e-5f);
  p.center = c.node().op_type != "RMSNormalization";
  if (stretches(c)) {
    p.n = c.input(1).shape.elements();
    return c.step(run_stretched, p, {c.in(0), c.out(0), c.in(1), c.has_input(2) ? c.in(2) : Ref{}},
                  multiplied(p.rows, p.n));
  }
  if (p.rows * p.n == 0) return;
  const Ref mean = c.has_output(1) ? c.out(1) : Ref{}, inverse = c.has_output(2) ? c.out(2) : Ref{};
  if (mean.valid() || inverse.valid()) {  // before x may be overwritten in place
    const auto fn = dispatch<kFloatTypes>(c.input(0).dtype, []<class T>() -> StepFn { return run_moments<T>; });
    c.step(fn, p, {c.in(0), mean, inverse}, multiplied(p.rows, p.n) * 2);
  }
  const auto [scale, bias] = spelled_out(c, p, axis);
  lower_norm(c, p, scale, bias);
}

// ---- InstanceNormalization and GroupNormalization -------------------------------------------------------------------

NormParams group_params(const NodeContext& c) {
  const bool instance = c.node().op_type == "InstanceNormalization";
  if (!instance && c.attr_int("num_groups", 0) < 1) c.fail(cat("num_groups is ", c.attr_int("num_groups", 0)));
  const Shape& x = c.input(0).shape;
  // Features without a place are groups of channels, too; an instance of one element is nothing to normalise.
  if (x.rank() < (instance ? 3 : 2)) c.fail(cat("expected [batch, channels, spatial...], got ", x.str()));
  const int64_t channels = x[1], area = x.elements(2, x.rank());
  const int64_t groups = instance ? channels : c.attr_int("num_groups", 0);
  if (groups < 1 || channels % groups != 0)
    c.fail(cat(counted(channels, "channel"), " cannot form ", counted(groups, "group")));
  NormParams p;
  p.rows = x[0] * groups;
  p.n = channels / groups * area;
  p.groups = groups;
  const bool per_channel = !instance && c.version() >= 21;
  p.per_group = per_channel ? channels / groups : 1;
  p.inner = per_channel ? area : p.n;
  p.epsilon = c.attr_float("epsilon", 1e-5f);
  return p;
}

void infer_group_norm(InferContext& c) {
  require_float_inputs(c);
  const NormParams p = group_params(c);
  require_parameters(c, p.groups * p.per_group, p.per_group == 1 ? "one per group" : "one per channel");
  c.set_output(0, c.input(0).dtype, c.input(0).shape);
}

void lower_group_norm(LowerContext& c) { lower_norm(c, group_params(c), c.in(1), c.in(2)); }

/// Channels are normalised by themselves, or in groups of them.
Axes mixed_by_instance_norm(const NodeContext&, size_t i) { return i == 0 ? static_cast<Axes>(~0b11u) : Axes{0}; }

}  // namespace

void register_normalization(OpRegistry& r) {
  const OpSchema layer{.name = "LayerNormalization",
                       .since = 1,  // from 17 on; ONNX Runtime writes it into older models, too
                       .min_inputs = 2,
                       .max_inputs = 3,
                       .max_outputs = 3,
                       .infer = infer_layer_norm,
                       .mixed_axes = mixed_by_layer_norm};
  r.add(layer, lower_layer_norm);
  OpSchema fused = layer;
  fused.domain = kInternal;
  fused.name = "LayerNorm";
  fused.since = 1;
  fused.min_inputs = 1;
  fused.max_outputs = 1;
  r.add(fused, lower_layer_norm);
  r.add({.name = "RMSNormalization",
         .since = 23,
         .min_inputs = 2,
         .max_inputs = 2,
         .max_outputs = 1,
         .infer = infer_layer_norm,
         .mixed_axes = mixed_by_layer_norm},
        lower_layer_norm);
  const OpSchema group{.min_inputs = 3,
                       .max_inputs = 3,
                       .max_outputs = 1,
                       .infer = infer_group_norm,
                       .mixed_axes = mixed_by_instance_norm};
  OpSchema row = group;
  row.name = "InstanceNormalization";
  r.add(row, lower_group_norm);
  row.name = "GroupNormalization";
  row.mixed_axes = behind_first_axis;
  row.since = 18;
  r.add(row, lower_group_norm);
}

}  // namespace inferkit
