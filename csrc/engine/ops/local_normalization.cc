// LRN, LpNormalization and MeanVarianceNormalization.
#include <algorithm>
#include <cmath>

#include "engine/compile/op_registry.h"
#include "engine/compile/strided.h"
#include "engine/ops/common/convert.h"
#include "engine/ops/dispatch.h"
#include "kernels/cpu/binary/binary.h"
#include "kernels/cpu/vmath/vmath.h"
#include "kernels/summation.h"
#include "platform/run_control.h"
#include "platform/thread_pool.h"

namespace inferkit {
namespace {

int64_t lrn_size(const NodeContext& c) {
  const int64_t size = c.attr_int("size", 0);
  if (size < 1) c.fail("size must be at least 1");
  return size;
}

int64_t lp_norm(const NodeContext& c) {
  const int64_t norm = c.attr_int("p", 2);
  if (norm != 1 && norm != 2) c.unsupported(cat("p is ", norm, ", expected 1 or 2"));
  return norm;
}

void infer_same(InferContext& c) {
  if (c.node().op_type == "LRN") lrn_size(c);
  if (c.node().op_type == "LpNormalization") lp_norm(c);
  require_type(c, 0, kFloatTypes);
  c.set_output(0, c.input(0).dtype, c.input(0).shape);
}

// ---- LRN: x / (bias + alpha / size * sum of squares over neighbouring channels) ^ beta ------------------------------

struct LrnParams {
  int64_t batch, channels, area, size;
  float alpha, beta, bias;

  int64_t first(int64_t c) const { return std::max<int64_t>(0, c - (size - 1) / 2); }
  int64_t last(int64_t c) const { return std::min(channels, c + size / 2 + 1); }
};

constexpr int64_t kBlock = 1024;

/// Channel `c` of one image, columns [column, column + width).
void lrn_block(const LrnParams& p, const float* x, float* y, int64_t c, int64_t column, int64_t width) {
  using namespace kernels;
  const BinaryFn add = binary_fn(Binary::kAdd, BinaryForm::kVectorVector);
  const BinaryFn mul = binary_fn(Binary::kMul, BinaryForm::kVectorVector);
  const BinaryFn scale = binary_fn(Binary::kMul, BinaryForm::kVectorScalar);
  const BinaryFn shift = binary_fn(Binary::kAdd, BinaryForm::kVectorScalar);
  alignas(64) float sum[kBlock], part[kBlock], square[kBlock];
  const int64_t chunk = sum_chunk(std::min(p.size, 4 * kLongestChunk));  // of any longer sum, too
  for (int64_t first = p.first(c); first < p.last(c); first += chunk) {
    float* const to = first == p.first(c) ? sum : part;
    std::fill(to, to + width, 0.0f);
    for (int64_t k = first; k < std::min(p.last(c), first + chunk); ++k) {
      const float* in = x + k * p.area + column;
      mul(in, in, square, width);
      add(to, square, to, width);
    }
    if (to == part) add(sum, part, sum, width);
  }
  const float factor = p.alpha / static_cast<float>(p.size), power = -p.beta;
  scale(sum, &factor, sum, width);
  shift(sum, &p.bias, sum, width);
  unary_fn(Unary::kLog)(sum, sum, width, 0, 0);
  scale(sum, &power, sum, width);
  unary_fn(Unary::kExp)(sum, sum, width, 0, 0);
  mul(x + c * p.area + column, sum, y + c * p.area + column, width);
}

void run_lrn_f32(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const LrnParams*>(params);
  const auto channel = [&](int64_t i) {
    const int64_t image = i / p.channels * p.channels * p.area;
    for (int64_t column = 0; column < p.area; column += kBlock) {
      lrn_block(p, reinterpret_cast<const float*>(io[0]) + image, reinterpret_cast<float*>(io[1]) + image,
                i % p.channels, column, std::min(kBlock, p.area - column));
    }
  };
  if (context.pool && context.max_threads > 1 && p.batch * p.channels * p.area >= (1 << 16))
    context.pool->parallel_for(p.batch * p.channels, context.max_threads, channel);
  else
    for_parts(p.batch * p.channels, channel);
}

void run_lrn_f64(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const LrnParams*>(params);
  WorkMeter meter;
  for (int64_t i = 0; i < p.batch * p.channels * p.area && meter.go_on(50); ++i) {
    const int64_t c = i / p.area % p.channels;
    const double* x = reinterpret_cast<const double*>(io[0]) + i;
    double sum = 0;
    for (int64_t k = p.first(c); k < p.last(c); ++k) {
      const double v = x[(k - c) * p.area];
      sum += v * v;
    }
    const double base = static_cast<double>(p.bias) + static_cast<double>(p.alpha) / static_cast<double>(p.size) * sum;
    const double y = *x * std::pow(base, -static_cast<double>(p.beta));
    reinterpret_cast<double*>(io[1])[i] = y;
  }
}

void lower_lrn(LowerContext& c) {
  const TensorFacts& x = c.input(0);
  if (x.shape.rank() < 2) c.fail(cat("expected [batch, channels, ...], got ", x.shape.str()));
  const LrnParams p{x.shape[0],
                    x.shape[1],
                    x.shape.elements(2, x.shape.rank()),
                    lrn_size(c),
                    c.attr_float("alpha", 1e-4f),
                    c.attr_float("beta", 0.75f),
                    c.attr_float("bias", 1.0f)};
  const bool f32 = x.dtype == DType::kF32;
  const DType type = f32 ? DType::kF32 : DType::kF64;
  const Ref in = converted(c, c.in(0), x.dtype, type, x.shape.elements()), out = begin_output(c, 0, type);
  c.step(f32 ? run_lrn_f32 : run_lrn_f64, p, {in, out}, static_cast<double>(x.shape.elements()) * (f32 ? 2 : 60));
  end_output(c, 0, out, type);
}

// ---- LpNormalization and MeanVarianceNormalization ------------------------------------------------------------------

struct NestParams {
  LoopNest<1> kept, reduced;
  int64_t count;
  int64_t p;  // of the norm; 0: mean and variance
};

/// v = (v - mean) * factor, or v / divisor.
struct Transform {
  double mean, divisor;
};

template <class F>
void each(const LoopNest<1>& nest, F&& f) {
  for_each_run(nest, [&](const std::array<int64_t, 1>& offset, int64_t) {
    for (int64_t i = 0; i < nest.inner(); ++i) f(offset[0] + i * nest.inner_stride(0));
  });
}

template <class T>
Transform transform_of(const NestParams& p, const T* x) {
  const auto at = [&](int64_t i) { return static_cast<double>(x[i]); };
  double sum = 0;
  if (p.p == 1) {
    each(p.reduced, [&](int64_t i) { sum += std::abs(at(i)); });
    return {0, sum};
  }
  if (p.p == 2) {
    each(p.reduced, [&](int64_t i) { sum += at(i) * at(i); });
    return {0, std::sqrt(sum)};
  }
  each(p.reduced, [&](int64_t i) { sum += at(i); });
  const double mean = sum / static_cast<double>(p.count);
  double squares = 0;
  each(p.reduced, [&](int64_t i) { squares += (at(i) - mean) * (at(i) - mean); });
  return {mean, std::sqrt(squares / static_cast<double>(p.count)) + 1e-9};
}

template <class T>
void run_nest(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const NestParams*>(params);
  WorkMeter meter;
  each(p.kept, [&](int64_t at) {
    if (!meter.go_on(6 * p.count)) return;
    const T* x = reinterpret_cast<const T*>(io[0]) + at;
    T* y = reinterpret_cast<T*>(io[1]) + at;
    const Transform t = transform_of(p, x);
    // A vector of zeros has no direction and stays as it is.
    const double divisor = t.divisor == 0 ? 1 : t.divisor;
    each(p.reduced, [&](int64_t i) { y[i] = static_cast<T>((static_cast<double>(x[i]) - t.mean) / divisor); });
  });
}

void lower_nest(LowerContext& c, const std::array<bool, Shape::kMaxRank>& reduced, int64_t norm) {
  const TensorFacts& x = c.input(0);
  if (x.shape.elements() == 0) return;
  const auto strides = x.shape.strides();
  Shape kept, gone;
  Strides kept_strides{}, gone_strides{};
  for (size_t i = 0; i < x.shape.rank(); ++i) {
    (reduced[i] ? gone_strides[gone.rank()] : kept_strides[kept.rank()]) = strides[i];
    (reduced[i] ? gone : kept).push_back(x.shape[i]);
  }
  const NestParams p{make_nest<1>(kept, {kept_strides}), make_nest<1>(gone, {gone_strides}), gone.elements(), norm};
  c.in_place(0, 0);
  const DType type = compute_type(x.dtype);
  const Ref in = converted(c, c.in(0), x.dtype, type, x.shape.elements()), out = begin_output(c, 0, type);
  c.step(type == DType::kF32 ? run_nest<float> : run_nest<double>, p, {in, out},
         static_cast<double>(x.shape.elements()) * 4);
  end_output(c, 0, out, type);
}

using Reduced = std::array<bool, Shape::kMaxRank>;

Reduced reduced_by_lp(const NodeContext& c) {
  Reduced out{};
  out[static_cast<size_t>(c.attr_axis(-1, static_cast<int64_t>(c.input(0).shape.rank())))] = true;
  return out;
}

Reduced reduced_by_mean_variance(const NodeContext& c) {
  const auto rank = static_cast<int64_t>(c.input(0).shape.rank());
  std::vector<int64_t> axes = c.attr_ints("axes");
  if (!c.has_attr("axes")) axes = {0, 2, 3};
  Reduced out{};
  for (int64_t axis : axes) out[static_cast<size_t>(c.resolve_axis(axis, rank))] = true;
  return out;
}

template <Reduced (*reduced)(const NodeContext&)>
Axes mixed_axes(const NodeContext& c, size_t) {
  Axes out = 0;
  const Reduced axes = reduced(c);
  for (size_t i = 0; i < axes.size(); ++i) out = static_cast<Axes>(out | unsigned{axes[i]} << i);
  return out;
}

void lower_lp(LowerContext& c) { lower_nest(c, reduced_by_lp(c), lp_norm(c)); }
void lower_mean_variance(LowerContext& c) { lower_nest(c, reduced_by_mean_variance(c), 0); }

}  // namespace

void register_local_normalization(OpRegistry& r) {
  OpSchema schema{.min_inputs = 1, .max_inputs = 1, .max_outputs = 1, .infer = infer_same};
  schema.name = "LRN";
  schema.mixed_axes = [](const NodeContext&, size_t) { return one_axis(1); };
  r.add(schema, lower_lrn);
  schema.name = "LpNormalization";
  schema.mixed_axes = mixed_axes<reduced_by_lp>;
  r.add(schema, lower_lp);
  schema.name = "MeanVarianceNormalization";
  schema.since = 9;
  schema.mixed_axes = mixed_axes<reduced_by_mean_variance>;
  schema.rows_mix = [](const Node& node, const Graph&) {
    return !node.attributes.contains("axes");  // then they are 0, 2 and 3
  };
  r.add(schema, lower_mean_variance);
}

}  // namespace inferkit
