// The CPU's lane functions by number, for kernels.
#pragma once
#define INFERKIT_ONE_LANE
#include "kernels/cpu/binary/binary.h"
#include "kernels/cpu/vmath/vmath.h"
#include "kernels/cpu/vmath/vmath_inl.h"
#include "kernels/elementary.h"
#include "kernels/trigonometry.h"

namespace inferkit::kernels::cuda {
namespace {

/// use(f) with the function of F32x16 that `op` is: so that a loop over elements can stand inside of the choice.
template <class Use>
INFERKIT_DEVICE void with_unary(Unary op, float alpha, float beta, Use use) {
  [[maybe_unused]] const F32x16 a = broadcast(alpha), b = broadcast(beta);
  [[maybe_unused]] const F32x16 zero = broadcast(0), one = broadcast(1.0f);
  switch (op) {
#define INFERKIT_UNARY_FUNCTION(number, name, expression) \
  case Unary::number:                                     \
    return use([&](F32x16 v) { return expression; });
#include "kernels/cpu/vmath/functions.inc"
#undef INFERKIT_UNARY_FUNCTION
    case Unary::kSin:
    case Unary::kCos:
      return use([&](F32x16 v) {
        const float angle = flushed(v.v);
        return F32x16{sine(angle, static_cast<uint32_t>(__float_as_int(angle)), op == Unary::kCos ? 1 : 0)};
      });
    default:
      return use([](F32x16 v) { return v; });
  }
}

INFERKIT_DEVICE float apply_unary(Unary op, float x, float alpha, float beta) {
  float out = x;
  with_unary(op, alpha, beta, [&](auto f) { out = f(F32x16{x}).v; });
  return out;
}

/// Those that are elementary.
INFERKIT_DEVICE float apply_elementary(Unary op, float x) {
  switch (op) {
    case Unary::kTan: {
      const float angle = flushed(x);
      return tangent(angle, static_cast<uint32_t>(__float_as_int(angle)));
    }
    case Unary::kAtan:
      return arctangent(x);
    case Unary::kAsin:
      return arcsine(x);
    case Unary::kAcos:
      return arccosine(x);
    case Unary::kSinh:
      return hyperbolic_sine(x);
    case Unary::kCosh:
      return hyperbolic_cosine(x);
    case Unary::kAsinh:
      return area_sine(x);
    case Unary::kAcosh:
      return area_cosine(x);
    case Unary::kAtanh:
      return area_tangent(x);
    default:
      return x;
  }
}

INFERKIT_DEVICE F32x16 nan_min(F32x16 a, F32x16 b) { return blend(is_nan(a), a, min(a, b)); }
INFERKIT_DEVICE F32x16 nan_max(F32x16 a, F32x16 b) { return blend(is_nan(a), a, max(a, b)); }

/// use(f) with the function of two F32x16 that `op` is.
template <class Use>
INFERKIT_DEVICE void with_binary(Binary op, Use use) {
  switch (op) {
    case Binary::kAdd:
      return use([](F32x16 a, F32x16 b) { return a + b; });
    case Binary::kSub:
      return use([](F32x16 a, F32x16 b) { return a - b; });
    case Binary::kMul:
      return use([](F32x16 a, F32x16 b) { return a * b; });
    case Binary::kDiv:
      return use([](F32x16 a, F32x16 b) { return a / b; });
    case Binary::kMin:
      return use([](F32x16 a, F32x16 b) { return nan_min(a, b); });
    case Binary::kMax:
      return use([](F32x16 a, F32x16 b) { return nan_max(a, b); });
    case Binary::kPrelu:
      return use([](F32x16 a, F32x16 b) { return blend(a < broadcast(0), b * a, a); });
  }
}

INFERKIT_DEVICE float apply_binary(Binary op, float x, float y) {
  float out = x;
  with_binary(op, [&](auto f) { out = f(F32x16{x}, F32x16{y}).v; });
  return out;
}

}  // namespace
}  // namespace inferkit::kernels::cuda
