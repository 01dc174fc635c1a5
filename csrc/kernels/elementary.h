// Powers, and the inverse and hyperbolic functions of a float, computed in double and rounded once. As in
// trigonometry.h, every operation rounds by itself and none is fused, on every tier and on CUDA: so the bits are the
// same everywhere, which those of C libraries are not. Subnormal floats count as zero, as an operand and as a result.
// Where values differ in kind, all ways are computed and one is chosen, and conditions are joined by & and |: a
// compiler makes vectors of that.
#pragma once
#include <math.h>
#include <stdint.h>

#if !defined(INFERKIT_INLINE)
#define INFERKIT_INLINE static inline
#endif

namespace inferkit::kernels {
namespace {

INFERKIT_INLINE uint64_t bits_of(double x) { return __builtin_bit_cast(uint64_t, x); }
INFERKIT_INLINE double of_bits(uint64_t bits) { return __builtin_bit_cast(double, bits); }
INFERKIT_INLINE double infinity() { return static_cast<double>(__builtin_inff()); }

constexpr uint64_t kSignBit = uint64_t{1} << 63;
INFERKIT_INLINE double size_of(double x) { return of_bits(bits_of(x) & ~kSignBit); }
/// A size, with the sign of another number; that of -0 is minus.
INFERKIT_INLINE double with_sign(double size, double sign) {
  return of_bits(bits_of(size) | (bits_of(sign) & kSignBit));
}

INFERKIT_INLINE uint64_t mask_of(bool condition) { return uint64_t{0} - static_cast<uint64_t>(condition); }
/// a where the condition holds, else b; not a branch, whatever a and b are.
INFERKIT_INLINE double choose(bool condition, double a, double b) {
  const uint64_t mask = mask_of(condition);
  return of_bits((bits_of(a) & mask) | (bits_of(b) & ~mask));
}

/// x, or the zero of its sign for a subnormal.
INFERKIT_INLINE double widened(float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  return static_cast<double>(__builtin_bit_cast(float, (bits & 0x7f800000) == 0 ? bits & 0x80000000 : bits));
}
/// The nearest float; the zero of its sign for what is subnormal after it was rounded.
INFERKIT_INLINE float narrowed(double v) {
  return static_cast<float>(size_of(v) < 0x1.ffffffp-127 ? with_sign(0, v) : v);
}

/// 2^t for |t| <= 1000, within 2^-51 of itself: t = n + f with |f| <= 1/2, and Taylor's series of e^(f ln 2).
INFERKIT_INLINE double power_of_two(double t) {
  const double shifted = t + 0x1.8p52;  // rounds to an integer, held in the low bits
  const double n = shifted - 0x1.8p52;
  const double r = (t - n) * 0x1.62e42fefa39efp-1;
  double p = 1 / 6227020800.0;
  p = p * r + 1 / 479001600.0;
  p = p * r + 1 / 39916800.0;
  p = p * r + 1 / 3628800.0;
  p = p * r + 1 / 362880.0;
  p = p * r + 1 / 40320.0;
  p = p * r + 1 / 5040.0;
  p = p * r + 1 / 720.0;
  p = p * r + 1 / 120.0;
  p = p * r + 1 / 24.0;
  p = p * r + 1 / 6.0;
  p = p * r + 0.5;
  return (1 + (r + r * r * p)) * of_bits((bits_of(shifted) + 1023) << 52);
}

/// log2(x) of a positive double that is neither subnormal nor infinite, within 2^-50 of itself: x = 2^k m with m
/// between sqrt(1/2) and sqrt(2), and Taylor's series of the area tangent of (m - 1) / (m + 1).
INFERKIT_INLINE double logarithm_to_two(double x) {
  constexpr uint64_t kRoot = 0x3fe6a09e667f3bcd;                                // sqrt(1/2)
  const uint64_t biased = (bits_of(x) - kRoot + (uint64_t{1024} << 52)) >> 52;  // k + 1024
  const double k = of_bits(bits_of(0x1p52) | biased) - (0x1p52 + 1024);
  const double m = of_bits(bits_of(x) - ((biased - 1024) << 52));
  const double s = (m - 1) / (m + 1), z = s * s;
  double p = 1 / 21.0;
  p = p * z + 1 / 19.0;
  p = p * z + 1 / 17.0;
  p = p * z + 1 / 15.0;
  p = p * z + 1 / 13.0;
  p = p * z + 1 / 11.0;
  p = p * z + 1 / 9.0;
  p = p * z + 1 / 7.0;
  p = p * z + 1 / 5.0;
  p = p * z + 1 / 3.0;
  return k + (s + s * z * p) * 0x1.71547652b82fep+1;  // 2 / ln 2
}

/// e^x, of which only what a float can hold matters: |x| is cut at 500.
INFERKIT_INLINE double exponential(double x) {
  const double limited = x > 500 ? 500 : x < -500 ? -500 : x;
  return power_of_two(limited * 0x1.71547652b82fep+0);
}
INFERKIT_INLINE double natural_logarithm(double x) { return logarithm_to_two(x) * 0x1.62e42fefa39efp-1; }

/// Whose powers are as exact as a double is, by products, a root or a quotient.
INFERKIT_INLINE bool is_simple(double y) { return (y == 2) | (y == 3) | (y == 0.5) | (y == -1); }
/// base^y by the rules of C's pow: base^0 and 1^y are 1, also of NaN. kSimple is whether an exponent may be simple.
template <bool kSimple>
INFERKIT_INLINE float power(float base, double y) {
  const double x = widened(base), size = size_of(x), exponent = size_of(y);
  // Whether y is whole: adding 2^52 rounds to an integer, whose last bit tells whether it is odd. From there on doubles
  // are whole, and from 2^53 on even.
  const double shifted = exponent + 0x1p52;
  const bool large = exponent >= 0x1p52, whole = large | (shifted - 0x1p52 == exponent);
  const uint64_t last = bits_of(choose(large, exponent, shifted)) << 63;
  const uint64_t minus = bits_of(x) & last & mask_of(whole & (exponent < 0x1p53));  // the sign of the answer

  const double log = logarithm_to_two(choose((size > 0) & (size < infinity()), size, 1));
  const double t = y * choose(size == 0, -infinity(), choose(size == infinity(), infinity(), log));
  const double below = choose(t > 200, 200, choose(t < -200, -200, t));  // a float is infinite there, or 0
  // What is closer to the middle of two floats than these digits tell is the middle, such as 257^1.5, and goes to the
  // even one: so it is rounded to 40 bits first, in the way of Veltkamp.
  const double value = power_of_two(choose(size == 1, 0, below)), wide = value * 0x1.0008p+13;
  const double rounded = wide - (wide - value);

  double r = rounded;
  if constexpr (kSimple) {
    const double square = x * x, cube = size_of(square * x), root = sqrt(size), reciprocal = 1 / size;
    r = choose(y == 3, cube, choose(y == 0.5, root, choose(y == -1, reciprocal, rounded)));
    r = choose(y == 2, square, r);
  }
  const double real = choose((x < 0) & (size < infinity()) & !whole, static_cast<double>(__builtin_nanf("")),
                             of_bits(bits_of(r) | minus));
  const double known = choose((x != x) | (y != y), x + y, real);
  return narrowed(choose((y == 0) | (x == 1), 1, known));
}

/// The angle whose tangent is x >= 0. By one division, x is turned upside down beyond 1, and by 30 degrees beyond 15;
/// then Taylor's series.
INFERKIT_INLINE double angle_of(double x) {
  constexpr double kTan15 = 0.2679491924311227, kTan30 = 0.5773502691896257, kTan75 = 3.732050807568877;
  const bool steep = x > 1, wide = (x > kTan15) & (x < kTan75);
  const double turned = x * kTan30;
  const double upper = steep ? (wide ? 1 - turned : 1) : (wide ? x - kTan30 : x);
  const double lower = steep ? (wide ? x + kTan30 : x) : (wide ? 1 + turned : 1);
  const double r = upper / lower, z = r * r;
  double p = 1 / 29.0;
  p = p * z - 1 / 27.0;
  p = p * z + 1 / 25.0;
  p = p * z - 1 / 23.0;
  p = p * z + 1 / 21.0;
  p = p * z - 1 / 19.0;
  p = p * z + 1 / 17.0;
  p = p * z - 1 / 15.0;
  p = p * z + 1 / 13.0;
  p = p * z - 1 / 11.0;
  p = p * z + 1 / 9.0;
  p = p * z - 1 / 7.0;
  p = p * z + 1 / 5.0;
  p = p * z - 1 / 3.0;
  const double angle = (wide ? 0x1.0c152382d7365p-1 : 0) + (r + r * z * p);  // pi / 6
  return steep ? 0x1.921fb54442d18p+0 - angle : angle;                       // pi / 2
}

// NaN goes through every formula, and comes out where there is no answer: of a root of something negative, say.
INFERKIT_INLINE float arctangent(float v) {
  const double x = widened(v);
  return narrowed(with_sign(angle_of(size_of(x)), x));
}
INFERKIT_INLINE float arcsine(float v) {
  const double x = widened(v), size = size_of(x);
  return narrowed(with_sign(angle_of(size / sqrt((1 - size) * (1 + size))), x));
}
INFERKIT_INLINE float arccosine(float v) {
  const double x = widened(v);
  return narrowed(2 * angle_of(sqrt((1 - x) / (1 + x))));
}

// Below kFew, a few terms of Taylor's series: of what the formula subtracts too few digits would be left.
constexpr double kFew = 0x1p-7;
INFERKIT_INLINE float hyperbolic_sine(float v) {
  const double x = widened(v), size = size_of(x), z = x * x;
  const double few = size + size * z * (1 / 6.0 + z * (1 / 120.0 + z * (1 / 5040.0)));
  const double e = exponential(size), difference = (e - 1 / e) * 0.5;
  return narrowed(with_sign(size < kFew ? few : difference, x));
}
INFERKIT_INLINE float hyperbolic_cosine(float v) {
  const double e = exponential(size_of(widened(v)));
  return narrowed((e + 1 / e) * 0.5);
}
INFERKIT_INLINE float area_sine(float v) {
  const double x = widened(v), size = size_of(x), z = x * x;
  const double few = size + size * z * (-1 / 6.0 + z * (3 / 40.0 + z * (-15 / 336.0)));
  const double log = natural_logarithm(size + sqrt(z + 1));
  return narrowed(with_sign(size < kFew ? few : size < infinity() ? log : size, x));
}
INFERKIT_INLINE float area_cosine(float v) {
  const double x = widened(v);
  const double log = natural_logarithm(x + sqrt((x - 1) * (x + 1)));
  const double nan = static_cast<double>(__builtin_nanf(""));
  return narrowed(x < 1 ? nan : x < infinity() ? log : x);
}
INFERKIT_INLINE float area_tangent(float v) {
  const double x = widened(v), size = size_of(x), z = x * x;
  const double few = size + size * z * (1 / 3.0 + z * (1 / 5.0 + z * (1 / 7.0)));
  const double log = natural_logarithm((1 + size) / (1 - size)) * 0.5;
  const double nan = static_cast<double>(__builtin_nanf(""));
  const double inside = size < kFew ? few : log;
  return narrowed(with_sign(size < 1 ? inside : size == 1 ? infinity() : nan, x));
}

}  // namespace
}  // namespace inferkit::kernels
