// Elementwise operators of one input that also, or only, take integers or booleans: Relu, Abs, Neg, Sign, Clip, Shrink,
// Not, BitwiseNot, IsNaN, IsInf.
#include <cmath>
#include <limits>

#include "engine/compile/op_registry.h"
#include "engine/ops/common/float_map.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/parallel.h"
#include "engine/ops/saturate.h"
#include "kernels/cpu/half/half.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

using kernels::Unary;

struct Params {
  int64_t n;
  float alpha, beta;
};

// y = Op::apply(x) one by one; the result is T, or bool.
template <class Op, class T>
void run_map(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const Params*>(params);
  using R = std::conditional_t<std::is_same_v<decltype(Op::apply(Compute<T>{}, p)), bool>, bool, T>;
  const T* x = reinterpret_cast<const T*>(io[0]);
  R* y = reinterpret_cast<R*>(io[1]);
  in_blocks(p.n, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const auto v = Op::apply(load(x[i]), p);
      if constexpr (std::is_same_v<R, bool>) {
        y[i] = v;
      } else {
        y[i] = store<T>(v);
      }
    }
  });
}

#define INFERKIT_OP(name, expression)                          \
  struct name {                                                \
    template <class T>                                         \
    static auto apply(T x, [[maybe_unused]] const Params& p) { \
      return expression;                                       \
    }                                                          \
  }
INFERKIT_OP(Relu, x < T{0} ? T{0} : x);  // NaN stays
INFERKIT_OP(Not, !x);
INFERKIT_OP(BitwiseNot, static_cast<T>(~x));
INFERKIT_OP(IsNan, x != x);
INFERKIT_OP(IsInf, std::isinf(x) && (x > 0 ? p.beta != 0 : p.alpha != 0));
INFERKIT_OP(Sign, static_cast<T>(x != x ? x : static_cast<T>((x > T{0}) - (x < T{0}))));
#undef INFERKIT_OP
struct Neg {
  template <class T>
  static T apply(T x, const Params&) {
    if constexpr (std::is_integral_v<T>)
      return static_cast<T>(0 - static_cast<uint64_t>(x));  // the lowest stays
    else
      return -x;
  }
};
struct Abs {
  template <class T>
  static T apply(T x, const Params& p) {
    if constexpr (std::is_integral_v<T>)
      return x < 0 ? Neg::apply(x, p) : x;
    else
      return std::fabs(x);
  }
};
struct Shrink {
  template <class T>
  static T apply(T x, const Params& p) {
    using C = std::conditional_t<std::is_integral_v<T>, double, T>;
    const C v = static_cast<C>(x), bound = static_cast<C>(p.alpha), bias = static_cast<C>(p.beta);
    const C moved = v < -bound ? v + bias : v > bound ? v - bias : C{0};
    if constexpr (std::is_integral_v<T>)
      return saturated<T>(moved);
    else
      return moved;
  }
};

template <class Op, TypeSet Set>
void add_map(LowerContext& c, float alpha = 0, float beta = 0) {
  const StepFn fn = dispatch<Set>(c.input(0).dtype, []<class T>() -> StepFn { return run_map<Op, T>; });
  if (!fn) c.unsupported(cat("an input of type ", dtype_name(c.input(0).dtype)));
  const int64_t n = c.output(0).shape.elements();
  if (dtype_size(c.input(0).dtype) == dtype_size(c.output(0).dtype)) c.in_place(0, 0);
  c.step(fn, Params{n, alpha, beta}, {c.in(0), c.out(0)}, static_cast<double>(n));
}

template <class Op, TypeSet Set>
void lower_map(LowerContext& c) {
  add_map<Op, Set>(c);
}

// The kernels' types through the kernel, the rest of Set one by one.
template <class Op, Unary kKernel, TypeSet Set>
void lower_either(LowerContext& c) {
  if (lower_float_map(c, kernels::unary_fn(kKernel), 0, 0, 0.1)) return;
  add_map<Op, Set & ~types(DType::kF32, DType::kF16, DType::kBF16)>(c);
}

void lower_shrink(LowerContext& c) {
  add_map<Shrink, kNumberTypes>(c, c.attr_float("lambd", 0.5f), c.attr_float("bias", 0));
}
void lower_is_inf(LowerContext& c) {
  const bool negative = c.attr_int("detect_negative", 1) != 0, positive = c.attr_int("detect_positive", 1) != 0;
  add_map<IsInf, kFloatTypes>(c, negative, positive);
}

// Clip: operands x, min, max, y; Min(max, Max(x, min)), so that max wins where min > max, and NaN wherever it stands. A
// bound that is not there (nullptr) does not bound.
struct ClipParams {
  int64_t n;
  bool from_attributes;
  float low, high;
};
template <class T>
void run_clip(const void* params, std::byte* const* io, const ExecContext& context) {
  using C = Compute<T>;
  const auto& p = *static_cast<const ClipParams*>(params);
  const auto bound = [&](const std::byte* at, float attribute, bool above) -> C {
    if (p.from_attributes) return static_cast<C>(attribute);
    if (at) return load(*reinterpret_cast<const T*>(at));
    if constexpr (std::is_integral_v<C>)
      return above ? std::numeric_limits<C>::max() : std::numeric_limits<C>::lowest();
    else
      return above ? std::numeric_limits<C>::infinity() : -std::numeric_limits<C>::infinity();
  };
  const C low = bound(io[1], p.low, false), high = bound(io[2], p.high, true);
  const T* x = reinterpret_cast<const T*>(io[0]);
  T* y = reinterpret_cast<T*>(io[3]);
  if constexpr (std::is_floating_point_v<C>) {
    if (std::isnan(low) || std::isnan(high))
      return fill_in_blocks(y, p.n, store<T>(std::numeric_limits<C>::quiet_NaN()));
  }
  if constexpr (std::is_same_v<T, float>) {
    for_ranges(context, p.n, 1 << 16, [&](int64_t first, int64_t last) {
      kernels::unary_fn(Unary::kClip)(x + first, y + first, last - first, low, high);
    });
  } else if constexpr (kIsHalfType<T>) {
    constexpr int64_t kBlock = 256;
    for_ranges(context, p.n, 1 << 15, [&](int64_t first, int64_t last) {
      float block[kBlock];
      for (int64_t at = first; at < last; at += kBlock) {
        const int64_t n = std::min(kBlock, last - at);
        kernels::widen(x + at, block, n);
        kernels::unary_fn(Unary::kClip)(block, block, n, low, high);
        kernels::narrow(block, y + at, n);
      }
    });
  } else {
    in_blocks(p.n, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const T v = x[i] < low ? low : x[i];
        y[i] = v > high ? high : v;
      }
    });
  }
}

void lower_clip(LowerContext& c) {
  constexpr TypeSet kOld = kFloatTypes;  // before opset 12
  if (c.version() < 12) require_type(c, 0, kOld);
  const StepFn fn = dispatch<kNumberTypes>(c.input(0).dtype, []<class T>() -> StepFn { return run_clip<T>; });
  if (!fn) c.unsupported(cat("an input of type ", dtype_name(c.input(0).dtype)));
  ClipParams params{c.output(0).shape.elements(), c.version() < 11, 0, 0};
  params.low = c.attr_float("min", std::numeric_limits<float>::lowest());
  params.high = c.attr_float("max", std::numeric_limits<float>::max());
  c.in_place(0, 0);
  c.step(fn, params, {c.in(0), c.in(1), c.in(2), c.out(0)}, static_cast<double>(params.n) * 0.1);
}

void infer_clip(InferContext& c) {
  for (size_t i = 1; i < c.input_count(); ++i) {
    if (!c.has_input(i)) continue;
    require_same_type(c, 0, i);
    if (c.input(i).shape.elements() != 1) c.fail(cat("bound ", i, " is no scalar: ", c.input(i).shape.str()));
  }
  c.set_output(0, c.input(0).dtype, c.input(0).shape);
}

void infer_same(InferContext& c) { c.set_output(0, c.input(0).dtype, c.input(0).shape); }
void infer_bool(InferContext& c) { c.set_output(0, DType::kBool, c.input(0).shape); }

void add(OpRegistry& r, std::string_view name, int since, InferFn infer, LowerFn lower) {
  r.add({.name = name, .since = since, .min_inputs = 1, .max_inputs = 1, .max_outputs = 1, .infer = infer}, lower);
}

}  // namespace

void register_unary_any(OpRegistry& r) {
  constexpr TypeSet kSignedNumbers = kFloatTypes | kSignedTypes;
  add(r, "Relu", 6, infer_same, lower_either<Relu, Unary::kRelu, kSignedNumbers>);
  add(r, "Abs", 6, infer_same, lower_either<Abs, Unary::kAbs, kNumberTypes>);
  add(r, "Neg", 6, infer_same, lower_either<Neg, Unary::kNeg, kSignedNumbers>);
  add(r, "Sign", 9, infer_same, lower_either<Sign, Unary::kSign, kNumberTypes>);
  add(r, "Shrink", 9, infer_same, lower_shrink);
  add(r, "BitwiseNot", 18, infer_same, lower_map<BitwiseNot, kIntegerTypes>);
  add(r, "Not", 1, infer_bool, lower_map<Not, kBoolType>);
  add(r, "IsNaN", 9, infer_bool, lower_map<IsNan, kFloatTypes>);
  add(r, "IsInf", 10, infer_bool, lower_is_inf);
  r.add({.name = "Clip",
         .since = 6,
         .until = 10,
         .min_inputs = 1,
         .max_inputs = 1,
         .max_outputs = 1,
         .infer = infer_clip},
        lower_clip);
  r.add({.name = "Clip", .since = 11, .min_inputs = 1, .max_inputs = 3, .max_outputs = 1, .infer = infer_clip},
        lower_clip);
}

}  // namespace inferkit
