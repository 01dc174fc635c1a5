// e^x on eight lanes of double, beside the functions of float in vmath_inl.h.
#pragma once
#include "kernels/cpu/simd_double.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

/// x = n ln 2 + r with |r| <= ln 2 / 2, ln 2 in two parts of which the first is so short that n times it is exact
/// without FMA too; e^r by its Taylor series, whose rest is below 2^-56. Within one unit in the last place; beyond the
/// largest double inf, NaN for NaN.
INFERKIT_INLINE F64x8 exp(F64x8 x) {
  const F64x8 magic = broadcast(0x1.8p52);  // adding it rounds to an integer, held in the low bits
  const F64x8 limited = max(broadcast(-746.0), min(broadcast(710.0), x));
  const F64x8 n = fma(limited, broadcast(0x1.71547652b82fep+0), magic) - magic;
  F64x8 r = fma(n, broadcast(-0x1.62e42feep-1), limited);
  r = fma(n, broadcast(-0x1.a39ef35793c76p-33), r);
  static constexpr double c[] = {0x1p-1,                // 1 / 2!
                                 0x1.5555555555555p-3,  // 1 / 3! ...
                                 0x1.5555555555555p-5,
                                 0x1.1111111111111p-7,
                                 0x1.6c16c16c16c17p-10,
                                 0x1.a01a01a01a01ap-13,
                                 0x1.a01a01a01a01ap-16,
                                 0x1.71de3a556c734p-19,
                                 0x1.27e4fb7789f5cp-22,
                                 0x1.ae64567f544e4p-26,
                                 0x1.1eed8eff8d898p-29,
                                 0x1.6124613a86d09p-33};  // 1 / 13!
  F64x8 p = broadcast(c[11]);
  _Pragma("GCC unroll 16") for (int i = 10; i >= 0; --i) p = fma(p, r, broadcast(c[i]));
  p = fma(p, r * r, r);
#if defined(__AVX512F__)
  return {{(NativeDouble)_mm512_maskz_scalef_pd(0xff, (p + broadcast(1.0)).p[0], n.p[0])}};  // as in vmath_inl.h
#else
  // 2^n in two steps, so that neither leaves the exponent's range.
  const F64x8 half = fma(n, broadcast(0.5), magic);
  const F64x8 s = power_of_two_in(half);
  return fma(p, s, s) * power_of_two_in((n - (half - magic)) + magic);
#endif
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
