// Half types of one tier; included by <tier>.cc. The loops over integers are for the compiler to vectorise.
#pragma once
#include "kernels/cpu/half/half.h"
#include "kernels/cpu/simd.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

INFERKIT_INLINE float bits_float(uint32_t bits) {
  float f;
  memcpy(&f, &bits, sizeof(f));
  return f;
}
INFERKIT_INLINE uint32_t float_bits(float f) {
  uint32_t bits;
  memcpy(&bits, &f, sizeof(bits));
  return bits;
}

INFERKIT_INLINE float widen_one(uint16_t h) {
  const uint32_t magnitude = static_cast<uint32_t>(h & 0x7fffu) << 13;
  // A subnormal half is so many times 2^-24, which float holds as a normal number. Its bits must not be taken for a
  // float's before: that float is subnormal, and zero to all arithmetic while a model runs.
  const uint32_t subnormal = float_bits(static_cast<float>(static_cast<int32_t>(h & 0x3ffu)) * 0x1p-24f);
  const uint32_t finite = magnitude < 0x00800000u ? subnormal : magnitude + 0x38000000u;
  const uint32_t quiet = magnitude > 0x0f800000u ? 0x00400000u : 0;
  const uint32_t special = 0x7f800000u | (magnitude & 0x007fffffu) | quiet;
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  return bits_float(sign | (magnitude >= 0x0f800000u ? special : finite));
}

INFERKIT_INLINE uint16_t narrow_one(float f) {
  const uint32_t bits = float_bits(f), magnitude = bits & 0x7fffffffu;
  // Below the smallest normal half: adding 0.5 leaves the rounded multiple of 2^-24 in the low mantissa bits.
  const uint32_t subnormal = float_bits(bits_float(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13;
  uint32_t out = magnitude < 0x38800000u ? subnormal : normal;
  out = magnitude >= 0x477ff000u ? 0x7c00u : out;  // 65520 and above
  out = magnitude > 0x7f800000u ? (0x7e00u | ((magnitude >> 13) & 0x3ffu)) : out;
  return static_cast<uint16_t>(((bits >> 16) & 0x8000u) | out);
}

void widen_f16(const Half* half, float* y, int64_t n) {
  const auto* x = reinterpret_cast<const uint16_t*>(half);
  int64_t i = 0;
#if defined(__F16C__)
  for (; i + 8 <= n; i += 8) {
    _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i))));
  }
#endif
  for (; i < n; ++i) y[i] = widen_one(x[i]);
}

void narrow_f16(const float* x, Half* half, int64_t n) {
  auto* y = reinterpret_cast<uint16_t*>(half);
  int64_t i = 0;
#if defined(__F16C__)
  for (; i + 8 <= n; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(y + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), 0));  // nearest even
  }
#endif
  for (; i < n; ++i) y[i] = narrow_one(x[i]);
}

void widen_bf16(const BFloat16* half, float* y, int64_t n) {
  const auto* x = reinterpret_cast<const uint16_t*>(half);
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = static_cast<uint32_t>(x[i]) << 16;
    y[i] = bits_float(bits | ((bits & 0x7fffffffu) > 0x7f800000u ? 0x00400000u : 0));
  }
}

void narrow_bf16(const float* x, BFloat16* half, int64_t n) {
  auto* y = reinterpret_cast<uint16_t*>(half);
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = float_bits(x[i]);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    y[i] = static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : rounded);
  }
}

}  // namespace

extern const HalfKernels kHalf;
const HalfKernels kHalf = {compiled_isa, widen_f16, widen_bf16, narrow_f16, narrow_bf16};

}  // namespace inferkit::kernels::INFERKIT_TIER
