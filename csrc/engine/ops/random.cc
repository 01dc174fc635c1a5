// RandomUniform, RandomNormal and what is drawn like a tensor, Bernoulli, Multinomial. The draw of an element hangs on
// the node's key (draw_key) and on where the element stands, counted with the first axis outermost: the draws of a row
// do not depend on how many rows follow it, on threads, or on the machine.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/common/convert.h"
#include "engine/ops/common/draws.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/parallel.h"
#include "engine/plan/draw_stream.h"
#include "graph/onnx_tensor.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

constexpr int64_t kDrawGrain = 4096;  // elements

/// The largest number of the type that is less.
template <class T>
T below(T v) {
  using Bits = std::conditional_t<sizeof(T) == 2, uint16_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>;
  constexpr Bits kSign = static_cast<Bits>(Bits{1} << (8 * sizeof(T) - 1));
  const auto bits = std::bit_cast<Bits>(v);
  if (static_cast<Bits>(bits << 1) == 0) return std::bit_cast<T>(static_cast<Bits>(kSign | 1));
  return std::bit_cast<T>(static_cast<Bits>((bits & kSign) != 0 ? bits + 1 : bits - 1));
}

// --- Uniform and normal

struct DrawParams {
  uint64_t key;
  int64_t count;
  double a, b;  // the bounds of a uniform distribution, mean and scale of a normal one
};

/// As many bits as the type tells apart in [1/2, 1).
template <class T>
double fraction(uint64_t word) {
  constexpr int kBits = std::is_same_v<T, double>  ? 53
                        : std::is_same_v<T, float> ? 24
                        : std::is_same_v<T, Half>  ? 11
                                                   : 8;
  constexpr int kWidth = std::is_same_v<T, double> ? 64 : 32;
  return static_cast<double>(word >> (kWidth - kBits)) / static_cast<double>(uint64_t{1} << kBits);
}

template <class T>
T uniform(const DrawParams& p, uint64_t word) {
  const T v = store<T>(static_cast<Compute<T>>(p.a + fraction<T>(word) * (p.b - p.a)));
  return static_cast<double>(load(v)) >= p.b && p.a < p.b ? below(v) : v;  // it was rounded up
}

template <class T>
T normal(const DrawParams& p, double middle) {
  return store<T>(static_cast<Compute<T>>(p.a + p.b * normal_quantile(middle)));
}

template <class T, bool kNormal>
void draw_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const DrawParams*>(params);
  T* y = reinterpret_cast<T*>(io[0]);
  const Draws draws(p.key, DrawStream::current());
  const auto put = [&](int64_t i, auto word) { y[i] = kNormal ? normal<T>(p, between(word)) : uniform<T>(p, word); };
  for_ranges(context, p.count, kDrawGrain, [&](int64_t first, int64_t last) {
    if constexpr (std::is_same_v<T, double>) {
      draws.long_words(first, last, put);
    } else {
      draws.words(first, last, put);
    }
  });
}

/// The type that the node names; what it is not told where it names none.
std::optional<DType> named_type(const NodeContext& c, TypeSet set) {
  if (!c.has_attr("dtype")) return std::nullopt;
  const auto code = static_cast<int32_t>(c.attr_int("dtype", 1));
  const auto dtype = onnx::dtype_of(code);
  if (!dtype || !contains(set, *dtype)) c.unsupported("dtype " + onnx::dtype_text(code));
  return dtype;
}

bool is_normal(const NodeContext& c) { return c.node().op_type.starts_with("RandomNormal"); }

DrawParams draw_params(const NodeContext& c) {
  DrawParams p{.key = draw_key(c), .count = 0, .a = 0, .b = 0};
  if (is_normal(c)) {
    p.a = c.attr_float("mean", 0);
    p.b = c.attr_float("scale", 1);
    if (!std::isfinite(p.a) || !std::isfinite(p.b) || p.b < 0) c.wrong(cat("a mean of ", p.a, " and a scale of ", p.b));
  } else {
    p.a = c.attr_float("low", 0);
    p.b = c.attr_float("high", 1);
    if (!std::isfinite(p.a) || !std::isfinite(p.b) || p.a > p.b) c.wrong(cat("bounds of ", p.a, " and ", p.b));
  }
  return p;
}

void infer_draw(InferContext& c) {
  const DType dtype = named_type(c, kFloatTypes).value_or(DType::kF32);
  draw_params(c);
  if (!c.has_attr("shape")) c.wrong("has no shape");
  const std::vector<int64_t> dims = c.attr_ints("shape");
  if (dims.size() > Shape::kMaxRank) c.unsupported(cat("a shape of ", counted(dims.size(), "dimension")));
  for (const int64_t d : dims) {
    if (d < 0) c.wrong(cat("a dimension of ", d));
  }
  c.set_output(0, dtype, Shape(dims));
}

void infer_draw_like(InferContext& c) {
  const auto named = named_type(c, kFloatTypes);
  draw_params(c);
  const TensorFacts& x = c.input(0);
  if (!named && !contains(kFloatTypes, x.dtype)) {
    c.wrong(cat("names no type, and cannot draw ", dtype_name(x.dtype), " like its input"));
  }
  c.set_output(0, named.value_or(x.dtype), x.shape);
}

void lower_draw(LowerContext& c) {
  DrawParams p = draw_params(c);
  p.count = c.output(0).shape.elements();
  const bool normal = is_normal(c);
  const StepFn fn = dispatch<kFloatTypes>(
      c.output(0).dtype, [&]<class T>() -> StepFn { return normal ? draw_step<T, true> : draw_step<T, false>; });
  c.step(fn, p, {c.out(0)}, static_cast<double>(p.count) * (normal ? 25 : 8));
}

// --- Bernoulli

[[noreturn]] void throw_probability(double p) {
  throw Error(ErrorCode::kInference, cat("a probability of ", p, ", which is not in [0, 1]"));
}

struct BernoulliParams {
  uint64_t key;
  int64_t count;
  uint64_t one;  // its bits in the type of the output; those of zero are 0 in all of them
};

template <class T, class W>
void bernoulli_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const BernoulliParams*>(params);
  const T* x = reinterpret_cast<const T*>(io[0]);
  W* y = reinterpret_cast<W*>(io[1]);
  const W one = static_cast<W>(p.one);
  const Draws draws(p.key, DrawStream::current());
  WorkMeter meter;
  for_blocks(meter, 0, p.count, 8, [&](int64_t first, int64_t last) {
    draws.words(first, last, [&](int64_t i, uint32_t word) {
      const double chance = x[i];
      if (!(chance >= 0 && chance <= 1)) throw_probability(chance);
      y[i] = between(word) < chance ? one : W{0};
    });
  });
}

void infer_bernoulli(InferContext& c) {
  const auto named = named_type(c, kAllTypes);
  draw_key(c);
  require_type(c, 0, kFloatTypes);
  c.set_output(0, named.value_or(c.input(0).dtype), c.input(0).shape);
}

void lower_bernoulli(LowerContext& c) {
  const DType to = c.output(0).dtype;
  const BernoulliParams p{draw_key(c), c.output(0).shape.elements(), *bits_of_one(to)};
  const DType from = c.input(0).dtype, type = compute_type(from);
  const StepFn fn = dispatch_width(to, [&]<class W>() -> StepFn {
    return type == DType::kF32 ? bernoulli_step<float, W> : bernoulli_step<double, W>;
  });
  const Ref chances = converted(c, c.in(0), from, type, p.count);
  c.step(fn, p, {chances, c.out(0)}, static_cast<double>(p.count) * 8);
}

// --- Multinomial

struct MultinomialParams {
  uint64_t key;
  int64_t rows, classes, samples;
};

/// Running sums of what the classes of one row weigh; their logarithms, to any offset, are given.
template <class T>
void sum_weights(const T* x, std::vector<double>& sums) {
  double top = -std::numeric_limits<double>::infinity(), sum = 0;
  for (size_t k = 0; k < sums.size(); ++k) {
    const double v = x[k];
    if (std::isnan(v)) throw Error(ErrorCode::kInference, cat("the log-probability of class ", k, " is NaN"));
    top = std::max(top, v);
  }
  if (!std::isfinite(top)) throw Error(ErrorCode::kInference, cat("the largest log-probability of a row is ", top));
  for (size_t k = 0; k < sums.size(); ++k) sums[k] = sum += plain_exp(double{x[k]} - top);
}

template <class T, class R>
void multinomial_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const MultinomialParams*>(params);
  const T* x = reinterpret_cast<const T*>(io[0]);
  R* y = reinterpret_cast<R*>(io[1]);
  const Draws draws(p.key, DrawStream::current());
  std::vector<double> sums(static_cast<size_t>(p.classes));
  WorkMeter meter;
  for (int64_t row = 0; row < p.rows && meter.go_on(20 * p.classes); ++row) {
    sum_weights(x + row * p.classes, sums);
    const double total = sums.back();
    // Of classes that weigh nothing at the end, none is drawn even where a draw is rounded up to the total.
    const auto last = std::lower_bound(sums.begin(), sums.end(), total);
    for_blocks(meter, row * p.samples, (row + 1) * p.samples, 40, [&](int64_t first, int64_t end) {
      draws.long_words(first, end, [&](int64_t i, uint64_t word) {
        y[i] = static_cast<R>(std::upper_bound(sums.begin(), last, between(word) * total) - sums.begin());
      });
    });
  }
}

void infer_multinomial(InferContext& c) {
  const DType dtype = named_type(c, types(DType::kI32, DType::kI64)).value_or(DType::kI32);
  const int64_t samples = c.attr_int("sample_size", 1);
  if (samples < 1) c.wrong(cat("a sample_size of ", samples));
  draw_key(c);
  require_type(c, 0, kFloatTypes);
  const Shape& x = c.input(0).shape;
  if (x.rank() != 2) c.fail(cat("expected [rows, classes], got ", x.str()));
  if (x[1] == 0) c.fail("there are no classes to draw from");
  c.set_output(0, dtype, {x[0], samples});
}

void lower_multinomial(LowerContext& c) {
  const Shape &x = c.input(0).shape, &y = c.output(0).shape;
  const MultinomialParams p{draw_key(c), x[0], x[1], y[1]};
  const DType from = c.input(0).dtype, type = compute_type(from);
  const Ref weights = from == type ? c.steady(0) : converted(c, c.in(0), from, type, x.elements());
  const StepFn fn = dispatch<types(DType::kI32, DType::kI64)>(c.output(0).dtype, [&]<class R>() -> StepFn {
    return type == DType::kF32 ? multinomial_step<float, R> : multinomial_step<double, R>;
  });
  c.step(fn, p, {weights, c.out(0)}, static_cast<double>(x.elements()) * 20 + static_cast<double>(y.elements()) * 40);
}

}  // namespace

void register_random(OpRegistry& r) {
  OpSchema drawn{.min_inputs = 0, .max_inputs = 0, .max_outputs = 1, .infer = infer_draw};
  // A row's draws hang on its place among the others.
  OpSchema like{.min_inputs = 1,
                .max_inputs = 1,
                .max_outputs = 1,
                .infer = infer_draw_like,
                .rows_mix = [](const Node&, const Graph&) { return true; }};
  drawn.name = "RandomUniform";
  r.add(drawn, lower_draw);
  drawn.name = "RandomNormal";
  r.add(drawn, lower_draw);
  like.name = "RandomUniformLike";
  r.add(like, lower_draw);
  like.name = "RandomNormalLike";
  r.add(like, lower_draw);
  like.name = "Bernoulli";
  like.since = 15;
  like.infer = infer_bernoulli;
  r.add(like, lower_bernoulli);
  like.name = "Multinomial";
  like.since = 7;
  like.infer = infer_multinomial;
  r.add(like, lower_multinomial);
}

}  // namespace inferkit
