// Elementwise arithmetic of one tier; included by <tier>.cc.
#pragma once
#include "kernels/cpu/binary/binary.h"
#include "kernels/cpu/simd.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

/// How to read an operand: sixteen elements at i (n of them at the tail), or the same scalar everywhere.
struct Vector {
  const float* x;
  INFERKIT_MEMBER F32x16 at(int64_t i) const { return load(x + i); }
  INFERKIT_MEMBER F32x16 tail(int64_t i, int64_t n) const { return load_partial(x + i, n, 1.0f); }
};
struct Scalar {
  F32x16 x;
  INFERKIT_MEMBER F32x16 at(int64_t) const { return x; }
  INFERKIT_MEMBER F32x16 tail(int64_t, int64_t) const { return x; }
};

template <class F, class A, class B>
INFERKIT_INLINE void map(A a, B b, float* y, int64_t n, F f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, f(a.at(i), b.at(i)));
  if (i < n) store_partial(y + i, f(a.tail(i, n - i), b.tail(i, n - i)), n - i);
}

/// x86's min and max drop a NaN on the left: put it back.
INFERKIT_INLINE F32x16 nan_min(F32x16 a, F32x16 b) { return blend(is_nan(a), a, min(a, b)); }
INFERKIT_INLINE F32x16 nan_max(F32x16 a, F32x16 b) { return blend(is_nan(a), a, max(a, b)); }

#define INFERKIT_BINARY_FUNCTION(name, expression)                                     \
  struct name##_op {                                                                   \
    INFERKIT_MEMBER F32x16 operator()(F32x16 a, F32x16 b) const { return expression; } \
  };                                                                                   \
  void name##_vv(const float* a, const float* b, float* y, int64_t n) {                \
    map(Vector{a}, Vector{b}, y, n, name##_op{});                                      \
  }                                                                                    \
  void name##_vs(const float* a, const float* b, float* y, int64_t n) {                \
    if (n > 0) map(Vector{a}, Scalar{broadcast(*b)}, y, n, name##_op{});               \
  }                                                                                    \
  void name##_sv(const float* a, const float* b, float* y, int64_t n) {                \
    if (n > 0) map(Scalar{broadcast(*a)}, Vector{b}, y, n, name##_op{});               \
  }
INFERKIT_BINARY_FUNCTION(add, a + b)
INFERKIT_BINARY_FUNCTION(sub, a - b)
INFERKIT_BINARY_FUNCTION(mul, a* b)
INFERKIT_BINARY_FUNCTION(div, a / b)
INFERKIT_BINARY_FUNCTION(min, nan_min(a, b))
INFERKIT_BINARY_FUNCTION(max, nan_max(a, b))
INFERKIT_BINARY_FUNCTION(prelu, blend(a < broadcast(0), b* a, a))
#undef INFERKIT_BINARY_FUNCTION

}  // namespace

extern const BinaryKernels kBinary;
// In the order of enum Binary, and of enum BinaryForm.
const BinaryKernels kBinary = {
    compiled_isa,
    {{add_vv, add_vs, add_sv},
     {sub_vv, sub_vs, sub_sv},
     {mul_vv, mul_vs, mul_sv},
     {div_vv, div_vs, div_sv},
     {min_vv, min_vs, min_sv},
     {max_vv, max_vs, max_sv},
     {prelu_vv, prelu_vs, prelu_sv}},
};

}  // namespace inferkit::kernels::INFERKIT_TIER
