// The functions of vmath.h on sixteen lanes, for every family of a tier to inline. They are branch-free, so a lane
// never sees its neighbours. Coefficients are our own: minimax fits by fit.py (beside this file), which names for each
// the form and the interval. Errors, in units in the last place against double: see tests/cpp/kernels/test_vmath.cc.
#pragma once
#if defined(INFERKIT_ONE_LANE)
#include "kernels/cuda/one_lane.h"
#else
#include "kernels/cpu/simd.h"
#endif

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

/// c[0] + c[1] x + ... by Horner's rule.
template <int n>
INFERKIT_INLINE F32x16 polynomial(F32x16 x, const float (&c)[n]) {
  F32x16 r = broadcast(c[n - 1]);
  _Pragma("GCC unroll 16") for (int i = n - 2; i >= 0; --i) r = fma(r, x, broadcast(c[i]));
  return r;
}

/// x = n ln 2 + r with |r| <= ln 2 / 2; p = e^r - 1; `whole` is n.
struct ExpParts {
  I32x16 n;
  F32x16 p, whole;
};

/// x within +-110. Cody and Waite: ln 2 in two parts, the first so short that n times it is exact without FMA too.
INFERKIT_INLINE ExpParts exp_parts(F32x16 x) {
  const F32x16 magic = broadcast(12582912.0f);  // 1.5 2^23: adding it rounds to an integer, held in the low bits
  const F32x16 shifted = fma(x, broadcast(0x1.715476p+0f), magic);
  const F32x16 n = shifted - magic;
  F32x16 r = fma(n, broadcast(-0x1.63p-1f), x);
  r = fma(n, broadcast(0x1.bd0106p-13f), r);
  static constexpr float c[] = {0x1.fffffcp-2f, 0x1.555492p-3f, 0x1.5558b4p-5f, 0x1.123994p-7f, 0x1.6a491ep-10f};
  return {bits_of(shifted) - bits_of(magic), fma(polynomial(r, c), r * r, r), n};
}

/// 2^n for n in [-126, 127].
INFERKIT_INLINE F32x16 power_of_two(I32x16 n) { return float_of_bits(shift_left_23(n + 127)); }

/// Limits x to [low, high]; NaN stays NaN.
INFERKIT_INLINE F32x16 clamp(F32x16 x, float low, float high) { return max(broadcast(low), min(broadcast(high), x)); }

INFERKIT_INLINE F32x16 exp(F32x16 x) {
  const ExpParts e = exp_parts(clamp(x, -105.0f, 90.0f));
#if defined(__AVX512F__) && !defined(INFERKIT_ONE_LANE)
  // (1 + p) 2^n in one instruction: it rounds where the two steps do, after the sum and, if at all, at the end.
  return {{(Native)_mm512_maskz_scalef_ps(0xffff, (e.p + broadcast(1.0f)).p[0], e.whole.p[0])}};
#else
  const I32x16 half = shift_right_1(e.n);  // two steps, so that neither leaves the exponent's range
  const F32x16 s = power_of_two(half);
  return fma(e.p, s, s) * power_of_two(e.n - half);
#endif
}

/// e^x for x <= 0 (and NaN), one step shorter; below -87.3 it is 0.
INFERKIT_INLINE F32x16 exp_nonpositive(F32x16 x) {
  const F32x16 s_floor = broadcast(-87.3f);
  const ExpParts e = exp_parts(max(s_floor, x));
  const F32x16 s = power_of_two(e.n);
  return blend(x < s_floor, broadcast(0), fma(e.p, s, s));
}

INFERKIT_INLINE F32x16 expm1(F32x16 x) {
  const ExpParts e = exp_parts(clamp(x, -20.0f, 90.0f));
  const F32x16 s = power_of_two(e.n + (-1));  // half of 2^n: 2^128 itself does not exist
  const F32x16 r = fma(e.p, s, s - broadcast(0.5f));
  return blend(x == broadcast(0), x, r + r);
}

INFERKIT_INLINE F32x16 log(F32x16 x) {
  const F32x16 tiny = broadcast(0x1p-126f);
  const Mask16 subnormal = x < tiny;
  const F32x16 scaled = blend(subnormal, x * broadcast(0x1p+25f), x);
  const int32_t sqrt_half = 0x3f3504f3;
  const I32x16 shifted = bits_of(scaled) + (-sqrt_half);
  const F32x16 exponent = to_float(shift_right_23(shifted)) - blend(subnormal, broadcast(25.0f), broadcast(0));
  const F32x16 f = float_of_bits((shifted & 0x7fffff) + sqrt_half) - broadcast(1.0f);
  static constexpr float c[] = {0x1.55554ap-2f, -0x1.00022p-2f,  0x1.99a5aap-3f, -0x1.54789p-3f,
                                0x1.226d02p-3f, -0x1.0cdf2cp-3f, 0x1.07d7b8p-3f, -0x1.420384p-4f};
  const F32x16 ff = f * f;
  F32x16 low = fma(ff * f, polynomial(f, c), exponent * broadcast(-0x1.bd0106p-13f));
  low = fma(broadcast(-0.5f), ff, low);
  F32x16 r = fma(exponent, broadcast(0x1.63p-1f), f + low);
  r = blend(x < broadcast(__builtin_inff()), r, x);  // +inf and NaN give themselves
  r = blend(x == broadcast(0), broadcast(-__builtin_inff()), r);
  return blend(x < broadcast(0), broadcast(__builtin_nanf("")), r);
}

/// log(1 + u) for u in [0, 1].
INFERKIT_INLINE F32x16 log1p_unit(F32x16 u) {
  const F32x16 w = broadcast(1.0f) + u;
  const F32x16 lost = u - (w - broadcast(1.0f));  // what the sum rounded away
  return log(w) + lost / w;
}

INFERKIT_INLINE F32x16 tanh(F32x16 x) {
  const F32x16 a = abs(x), z = x * x;
  static constexpr float c[] = {-0x1.555534p-2f, 0x1.110762p-3f, -0x1.b8439ap-5f, 0x1.525328p-6f, -0x1.769df8p-8f};
  const F32x16 small = fma(a * z, polynomial(z, c), a);
  const F32x16 one = broadcast(1.0f);
  const F32x16 two_a = min(broadcast(20.0f), a + a);
  const ExpParts e = exp_parts(two_a);
  const F32x16 s = power_of_two(e.n);
  const F32x16 large = one - broadcast(2.0f) / (fma(e.p, s, s) + one);
  return with_sign(blend(a < broadcast(0.625f), small, large), x);
}

INFERKIT_INLINE F32x16 sigmoid(F32x16 x) {
  const F32x16 e = exp(-abs(x));
  const F32x16 one = broadcast(1.0f);
  return blend(x < broadcast(0), e, one) / (one + e);
}

INFERKIT_INLINE F32x16 erf(F32x16 x) {
  const F32x16 a = abs(x), z = x * x;
  static constexpr float small_c[] = {0x1.06eba8p-3f, -0x1.812740p-2f,  0x1.ce2d60p-4f, -0x1.b80076p-6f,
                                      0x1.544172p-8f, -0x1.a5ab46p-11f, 0x1.4dfac8p-14f};
  const F32x16 small = fma(a, polynomial(z, small_c), a);
  static constexpr float large_c[] = {0x1.20e8fep+0f, 0x1.456e8cp-1f,   0x1.af49b2p-4f,   -0x1.740f58p-6f,
                                      0x1.82ea06p-9f, -0x1.e323bcp-15f, -0x1.70faa0p-15f, 0x1.427d3ep-18f};
  const F32x16 b = min(broadcast(4.0f), a);
  const F32x16 large = broadcast(1.0f) - exp_nonpositive(-(b * polynomial(b, large_c)));
  return with_sign(blend(a < broadcast(0.921875f), small, large), x);
}

/// Keeps -inf out of products with a factor that vanishes there: the limit is 0, not NaN.
INFERKIT_INLINE F32x16 above_minus_inf(F32x16 x) { return max(broadcast(-0x1p+126f), x); }

INFERKIT_INLINE F32x16 gelu(F32x16 x) {
  const F32x16 half = broadcast(0.5f) * above_minus_inf(x);
  return fma(half, erf(x * broadcast(0x1.6a09e6p-1f)), half);
}

INFERKIT_INLINE F32x16 gelu_tanh(F32x16 x) {
  const F32x16 half = broadcast(0.5f) * above_minus_inf(x);
  const F32x16 inner = x * fma(x * x, broadcast(0.035677408f), broadcast(0.79788456f));
  return fma(half, tanh(inner), half);
}

INFERKIT_INLINE F32x16 silu(F32x16 x, F32x16 alpha) { return above_minus_inf(x) * sigmoid(alpha * x); }

INFERKIT_INLINE F32x16 softplus(F32x16 x) { return max(broadcast(0), x) + log1p_unit(exp(-abs(x))); }

/// tanh(log(1 + e)) = (e^2 + 2 e) / (e^2 + 2 e + 2) with e = e^x.
INFERKIT_INLINE F32x16 mish(F32x16 x) {
  const F32x16 e = exp(min(broadcast(20.0f), x));
  const F32x16 n = e * (e + broadcast(2.0f));
  return above_minus_inf(x) * (n / (n + broadcast(2.0f)));
}

INFERKIT_INLINE F32x16 relu(F32x16 x) { return max(broadcast(0), x); }
INFERKIT_INLINE F32x16 unit_clip(F32x16 x) { return min(broadcast(1.0f), max(broadcast(0), x)); }

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
