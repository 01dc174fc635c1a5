// The elementwise functions of one tier; included by <tier>.cc.
#pragma once
#include "kernels/cpu/vmath/scalar.h"
#include "kernels/cpu/vmath/vmath.h"
#include "kernels/cpu/vmath/vmath_inl.h"

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

// In these, v is the sixteen lanes, a and b the parameters on all of them, zero and one what they say.
#define INFERKIT_UNARY_FUNCTION(name, expression)                                 \
  void name##_row(const float* x, float* y, int64_t n, float alpha, float beta) { \
    [[maybe_unused]] const F32x16 a = broadcast(alpha), b = broadcast(beta);      \
    [[maybe_unused]] const F32x16 zero = broadcast(0), one = broadcast(1.0f);     \
    map(x, y, n, [=](F32x16 v) INFERKIT_LAMBDA { return expression; });           \
  }
INFERKIT_UNARY_FUNCTION(relu, relu(v))
INFERKIT_UNARY_FUNCTION(leaky_relu, blend(v < zero, a* v, v))
INFERKIT_UNARY_FUNCTION(clip, min(b, max(a, v)))
INFERKIT_UNARY_FUNCTION(sigmoid, sigmoid(v))
INFERKIT_UNARY_FUNCTION(tanh, tanh(v))
INFERKIT_UNARY_FUNCTION(gelu, gelu(v))
INFERKIT_UNARY_FUNCTION(gelu_tanh, gelu_tanh(v))
INFERKIT_UNARY_FUNCTION(silu, silu(v, a))
INFERKIT_UNARY_FUNCTION(hard_swish, above_minus_inf(v) * unit_clip(fma(v, broadcast(1.0f / 6), broadcast(0.5f))))
INFERKIT_UNARY_FUNCTION(hard_sigmoid, unit_clip(fma(a, v, b)))
INFERKIT_UNARY_FUNCTION(elu, blend(v < zero, a* expm1(v), v))
INFERKIT_UNARY_FUNCTION(selu, b* blend(v < zero, a* expm1(v), v))
INFERKIT_UNARY_FUNCTION(celu, blend(v < zero, a* expm1(v / a), v))
INFERKIT_UNARY_FUNCTION(softplus, softplus(v))
INFERKIT_UNARY_FUNCTION(softsign, blend(broadcast(__builtin_inff()) == abs(v), with_sign(one, v), v / (one + abs(v))))
INFERKIT_UNARY_FUNCTION(mish, mish(v))
INFERKIT_UNARY_FUNCTION(thresholded_relu, blend(v > a, v, zero))
INFERKIT_UNARY_FUNCTION(exp, exp(v))
INFERKIT_UNARY_FUNCTION(log, log(v))
INFERKIT_UNARY_FUNCTION(erf, erf(v))
INFERKIT_UNARY_FUNCTION(abs, abs(v))
INFERKIT_UNARY_FUNCTION(neg, -v)
INFERKIT_UNARY_FUNCTION(sign, blend(abs(v) > zero, with_sign(one, v), v))
INFERKIT_UNARY_FUNCTION(square, v* v)
INFERKIT_UNARY_FUNCTION(sqrt, sqrt(v))
INFERKIT_UNARY_FUNCTION(reciprocal, one / v)
INFERKIT_UNARY_FUNCTION(floor, floor(v))
INFERKIT_UNARY_FUNCTION(ceil, ceil(v))
INFERKIT_UNARY_FUNCTION(round, round_even(v))
#undef INFERKIT_UNARY_FUNCTION

}  // namespace

// In the order of enum Unary.
const VmathKernels kVmath = {
    compiled_isa,
    {copy,       relu_row,      leaky_relu_row, clip_row,       sigmoid_row,      tanh_row,
     gelu_row,   gelu_tanh_row, silu_row,       hard_swish_row, hard_sigmoid_row, elu_row,
     selu_row,   celu_row,      softplus_row,   softsign_row,   mish_row,         thresholded_relu_row,
     exp_row,    log_row,       erf_row,        abs_row,        neg_row,          sign_row,
     square_row, sqrt_row,      reciprocal_row, floor_row,      ceil_row,         round_row,
     sin_f32,    cos_f32},
};
static_assert(kUnaryCount == 32, "a row for every function");

}  // namespace inferkit::kernels::INFERKIT_TIER
