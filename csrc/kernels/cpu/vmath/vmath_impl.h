// The elementwise functions of one tier; included by <tier>.cc.
#pragma once
#include "base/independent.h"
#include "kernels/cpu/vmath/scalar.h"
#include "kernels/cpu/vmath/vmath.h"
#include "kernels/cpu/vmath/vmath_inl.h"
#include "kernels/elementary.h"

namespace inferkit::kernels::INFERKIT_TIER {

extern const VmathKernels kVmath;

namespace {

template <class F>
INFERKIT_INLINE void map(const float* x, float* y, int64_t n, F f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, f(load(x + i)));
  if (i < n) store_partial(y + i, f(load_partial(x + i, n - i)), n - i);
}

void copy(const float* x, float* y, int64_t n, float, float) {
  if (x != y) memcpy(y, x, static_cast<size_t>(n) * sizeof(float));
}

#define INFERKIT_UNARY_FUNCTION(number, name, expression)                         \
  void name##_row(const float* x, float* y, int64_t n, float alpha, float beta) { \
    [[maybe_unused]] const F32x16 a = broadcast(alpha), b = broadcast(beta);      \
    [[maybe_unused]] const F32x16 zero = broadcast(0), one = broadcast(1.0f);     \
    map(x, y, n, [=](F32x16 v) INFERKIT_LAMBDA { return expression; });           \
  }
#include "kernels/cpu/vmath/functions.inc"
#undef INFERKIT_UNARY_FUNCTION

// One element after another; none of y is read, but where it is x.
#define INFERKIT_ELEMENTARY_FUNCTION(name)                                  \
  void name##_row(const float* x, float* y, int64_t n, float, float) {      \
    INFERKIT_INDEPENDENT for (int64_t i = 0; i < n; ++i) y[i] = name(x[i]); \
  }
INFERKIT_ELEMENTARY_FUNCTION(arctangent)
INFERKIT_ELEMENTARY_FUNCTION(arcsine)
INFERKIT_ELEMENTARY_FUNCTION(arccosine)
INFERKIT_ELEMENTARY_FUNCTION(hyperbolic_sine)
INFERKIT_ELEMENTARY_FUNCTION(hyperbolic_cosine)
INFERKIT_ELEMENTARY_FUNCTION(area_sine)
INFERKIT_ELEMENTARY_FUNCTION(area_cosine)
INFERKIT_ELEMENTARY_FUNCTION(area_tangent)
#undef INFERKIT_ELEMENTARY_FUNCTION

void power_row(const float* x, const double* e, float* y, int64_t n) {
  INFERKIT_INDEPENDENT for (int64_t i = 0; i < n; ++i) y[i] = power<true>(x[i], e[i]);
}
template <bool kSimple>
INFERKIT_INLINE void power_by(const float* x, double e, float* y, int64_t n) {
  INFERKIT_INDEPENDENT for (int64_t i = 0; i < n; ++i) y[i] = power<kSimple>(x[i], e);
}
void power_of_one_row(const float* x, double e, float* y, int64_t n) {
  if (is_simple(e)) {
    power_by<true>(x, e, y, n);
  } else {
    power_by<false>(x, e, y, n);
  }
}

}  // namespace

// In the order of enum Unary.
const VmathKernels kVmath = {
    compiled_isa,
    {copy,
     relu_row,
     leaky_relu_row,
     clip_row,
     sigmoid_row,
     tanh_row,
     gelu_row,
     gelu_tanh_row,
     silu_row,
     hard_swish_row,
     hard_sigmoid_row,
     elu_row,
     selu_row,
     celu_row,
     softplus_row,
     softsign_row,
     mish_row,
     thresholded_relu_row,
     exp_row,
     log_row,
     erf_row,
     abs_row,
     neg_row,
     sign_row,
     square_row,
     sqrt_row,
     reciprocal_row,
     floor_row,
     ceil_row,
     round_row,
     sin_f32,
     cos_f32,
     tan_f32,
     arctangent_row,
     arcsine_row,
     arccosine_row,
     hyperbolic_sine_row,
     hyperbolic_cosine_row,
     area_sine_row,
     area_cosine_row,
     area_tangent_row},
    power_row,
    power_of_one_row,
};
static_assert(kUnaryCount == 41, "a row for every function");

}  // namespace inferkit::kernels::INFERKIT_TIER
