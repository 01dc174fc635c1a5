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

INFERKIT_DEVICE float apply_unary(Unary op, float x, float alpha, float beta) {
  [[maybe_unused]] const F32x16 v{x}, a = broadcast(alpha), b = broadcast(beta);
  [[maybe_unused]] const F32x16 zero = broadcast(0), one = broadcast(1.0f);
  switch (op) {
#define INFERKIT_UNARY_FUNCTION(number, name, expression) \
  case Unary::number:                                     \
    return (expression).v;
#include "kernels/cpu/vmath/functions.inc"
#undef INFERKIT_UNARY_FUNCTION
    case Unary::kSin:
    case Unary::kCos: {
      const float angle = flushed(x);
      return sine(angle, static_cast<uint32_t>(__float_as_int(angle)), op == Unary::kCos ? 1 : 0);
    }
    default:
      return x;
  }
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

INFERKIT_DEVICE float apply_binary(Binary op, float x, float y) {
  const F32x16 a{x}, b{y};
  switch (op) {
    case Binary::kAdd:
      return (a + b).v;
    case Binary::kSub:
      return (a - b).v;
    case Binary::kMul:
      return (a * b).v;
    case Binary::kDiv:
      return (a / b).v;
    case Binary::kMin:
      return nan_min(a, b).v;
    case Binary::kMax:
      return nan_max(a, b).v;
    case Binary::kPrelu:
      return blend(a < broadcast(0), b * a, a).v;
  }
  return x;
}

}  // namespace
}  // namespace inferkit::kernels::cuda
