// The sine, the cosine and the tangent of a float, computed in double and rounded once. The same operations for every
// tier and for CUDA, each of which rounds by itself: so the bits are the same everywhere, which those of C libraries
// are not.
#pragma once
#include <stdint.h>

#if !defined(INFERKIT_INLINE)
#define INFERKIT_INLINE static inline
#endif

namespace inferkit::kernels {
namespace {

/// Bits of 2 / pi, 32 to a word, of which the first holds those before the point.
INFERKIT_INLINE uint32_t two_over_pi(int32_t word) {
  switch (word) {
    case 1:
      return 0xa2f9836e;
    case 2:
      return 0x4e441529;
    case 3:
      return 0xfc2757d1;
    case 4:
      return 0xf534ddc0;
    case 5:
      return 0xdb629599;
    case 6:
      return 0x3c439041;
    case 7:
      return 0xfe5163ab;
    default:
      return 0;
  }
}

/// An angle of at least pi / 8 as `quarters` of a turn, modulo 4, and what is left.
struct Turned {
  double rest;
  uint32_t quarters;
};

/// By Payne and Hanek: x is m * 2^e, and of 2 / pi those 96 bits decide which are neither multiples of 4 when they are
/// multiplied by it, nor too small. `bits` are those of x > 0.
INFERKIT_INLINE Turned turned(uint32_t bits) {
  const int32_t first = static_cast<int32_t>(bits >> 23) - 127 + 7;
  const int32_t word = first / 32, shift = first % 32;
  const uint64_t m = (bits & 0x7fffff) | 0x800000;
  const auto window = [&](int32_t i) {
    const uint64_t two = uint64_t{two_over_pi(word + i)} << 32 | two_over_pi(word + i + 1);
    return two << shift >> 32;
  };
  const uint64_t turns = (m * window(0) << 32) + m * window(1) + (m * window(2) >> 32);  // in units of 2^-62 quarters
  const uint64_t quarters = (turns + (uint64_t{1} << 61)) >> 62;
  const auto rest = static_cast<int64_t>(turns - (quarters << 62));
  return {static_cast<double>(rest) * 0x1.921fb54442d18p-62, static_cast<uint32_t>(quarters)};  // pi / 2 * 2^-62
}

/// Taylor's series, whose next term is less than half of a double's last bit up to pi / 4.
INFERKIT_INLINE double sine_near_zero(double r) {
  const double z = r * r;
  double p = -1 / 1307674368000.0;
  p = p * z + 1 / 6227020800.0;
  p = p * z - 1 / 39916800.0;
  p = p * z + 1 / 362880.0;
  p = p * z - 1 / 5040.0;
  p = p * z + 1 / 120.0;
  p = p * z - 1 / 6.0;
  return r + r * z * p;
}
INFERKIT_INLINE double cosine_near_zero(double r) {
  const double z = r * r;
  double p = 1 / 20922789888000.0;
  p = p * z - 1 / 87178291200.0;
  p = p * z + 1 / 479001600.0;
  p = p * z - 1 / 3628800.0;
  p = p * z + 1 / 40320.0;
  p = p * z - 1 / 720.0;
  p = p * z + 1 / 24.0;
  p = p * z - 0.5;
  return 1 + z * p;
}

/// The size of a finite angle x of these bits. Where subnormals count as zero, they do so here.
INFERKIT_INLINE Turned angle_in_quarters(float x, uint32_t bits) {
  const uint32_t magnitude = bits & 0x7fffffff;
  constexpr uint32_t kPiOver4 = 0x3f490fda;  // the largest float below it
  return magnitude > kPiOver4 ? turned(magnitude) : Turned{static_cast<double>(magnitude == bits ? x : -x), 0};
}

/// sin(x) for `ahead` 0, cos(x) for 1; `bits` are those of x.
INFERKIT_INLINE float sine(float x, uint32_t bits, uint32_t ahead) {
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x7f800000) return x - x;  // NaN
  const Turned t = angle_in_quarters(x, bits);
  const uint32_t quarters = t.quarters + ahead;
  const double value = quarters & 1 ? cosine_near_zero(t.rest) : sine_near_zero(t.rest);
  const bool negative = ((quarters & 2) != 0) != (magnitude != bits && !ahead);
  return static_cast<float>(negative ? -value : value);
}

/// tan(x), in the same way: no float is so close to a multiple of pi / 2 that the quotient would leave a double's
/// digits.
INFERKIT_INLINE float tangent(float x, uint32_t bits) {
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x7f800000) return x - x;  // NaN
  const Turned t = angle_in_quarters(x, bits);
  const double s = sine_near_zero(t.rest), c = cosine_near_zero(t.rest);
  const double value = t.quarters & 1 ? -c / s : s / c;
  return static_cast<float>(magnitude != bits ? -value : value);
}

}  // namespace
}  // namespace inferkit::kernels
