// Loads of some of sixteen lanes, at a stride; part of conv_impl.h.
#pragma once
#include "kernels/cpu/simd.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

/// Which of sixteen lanes load_lanes reads: [low, high), worked out once for many loads.
#if defined(__AVX512F__)
struct Lanes {
  uint32_t mask;
};
template <int kStride>
INFERKIT_INLINE Lanes make_lanes(int64_t low, int64_t high) {
  if (low >= high) return {0};
  // At stride 2 what lies between two lanes exists, too, so that the mask is one run of bits.
  const int64_t from = kStride == 2 ? 2 * low : low, to = kStride == 2 ? 2 * high - 1 : high;
  return {static_cast<uint32_t>((uint64_t{1} << to) - (uint64_t{1} << from))};
}
#else
struct Lanes {
  int16_t low, high;
};
template <int kStride>
INFERKIT_INLINE Lanes make_lanes(int64_t low, int64_t high) {
  if (low >= high) return {0, 0};
  return {static_cast<int16_t>(low), static_cast<int16_t>(high)};
}
#endif

#if defined(__AVX2__) && !defined(__AVX512F__)
/// Lanes [low, high) of p, the others 0; memory outside is not touched. low and high may lie outside [0, 16].
INFERKIT_INLINE F32x16 load_range(const float* p, int low, int high) {
  const __m256i first = _mm256_set1_epi32(low - 1), end = _mm256_set1_epi32(high);
  const __m256i left = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), right = _mm256_add_epi32(left, _mm256_set1_epi32(8));
  const __m256i a = _mm256_and_si256(_mm256_cmpgt_epi32(left, first), _mm256_cmpgt_epi32(end, left));
  const __m256i b = _mm256_and_si256(_mm256_cmpgt_epi32(right, first), _mm256_cmpgt_epi32(end, right));
  return {{(Native)_mm256_maskload_ps(p, a), (Native)_mm256_maskload_ps(p + 8, b)}};
}
#endif

/// The chosen lanes are p[lane * stride], the others 0; other memory is not touched. kStride 0 stands for any.
template <int kStride>
INFERKIT_INLINE F32x16 load_lanes(const float* p, int64_t stride, Lanes lanes) {
#if defined(__AVX512F__)
  const auto mask = static_cast<__mmask16>(lanes.mask);
  if constexpr (kStride == 1) return {{(Native)_mm512_maskz_loadu_ps(mask, p)}};
  if constexpr (kStride == 2) {
    const F32x16 a = {{(Native)_mm512_maskz_loadu_ps(mask, p)}};
    const F32x16 b = {{(Native)_mm512_maskz_loadu_ps(static_cast<__mmask16>(lanes.mask >> 16), p + kLanes)}};
    return evens(a, b);
  }
  // Counted from the first chosen lane, which lies in the image: the others may be further from p than an index
  // reaches.
  const int first = __builtin_ctz(lanes.mask | 1u << kLanes);
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i index =
      _mm512_mullo_epi32(_mm512_sub_epi32(lane, _mm512_set1_epi32(first)), _mm512_set1_epi32(static_cast<int>(stride)));
  return {{(Native)_mm512_mask_i32gather_ps(_mm512_setzero_ps(), mask, index, p + first * stride, sizeof(float))}};
#else
  if constexpr (kStride == 1) {
    if (lanes.low == 0 && lanes.high == kLanes) return load(p);
  }
#if defined(__AVX2__)
  const int low = lanes.low, high = lanes.high;
  if constexpr (kStride == 1) return load_range(p, low, high);
  if constexpr (kStride == 2)
    return evens(load_range(p, 2 * low, 2 * high - 1), load_range(p + kLanes, 2 * low - kLanes, 2 * high - 1 - kLanes));
#endif
  float some[kLanes] = {};
  for (int i = lanes.low; i < lanes.high; ++i) some[i] = p[i * stride];
  return load(some);
#endif
}

/// Sixteen lanes, zero until add() reads some of them, which no two calls share.
template <int kStride>
struct Merged {
#if defined(__AVX512F__)
  F32x16 a = broadcast(0), b = broadcast(0);
  INFERKIT_MEMBER void add(const float* p, int64_t stride, Lanes lanes) {
    const auto mask = static_cast<__mmask16>(lanes.mask);
    if constexpr (kStride == 0) {
      if (mask) a = {{(Native)_mm512_mask_mov_ps((__m512)a.p[0], mask, (__m512)load_lanes<0>(p, stride, lanes).p[0])}};
    } else {
      a = {{(Native)_mm512_mask_loadu_ps((__m512)a.p[0], mask, p)}};
    }
    if constexpr (kStride == 2) {
      const auto high = static_cast<__mmask16>(lanes.mask >> kLanes);
      b = {{(Native)_mm512_mask_loadu_ps((__m512)b.p[0], high, p + kLanes)}};
    }
  }
  INFERKIT_MEMBER F32x16 value() const { return kStride == 2 ? evens(a, b) : a; }
#elif defined(__AVX2__)
  F32x16 a = broadcast(0);
  INFERKIT_MEMBER void add(const float* p, int64_t stride, Lanes lanes) {
    const F32x16 v = load_lanes<kStride>(p, stride, lanes);
    for (int i = 0; i < kParts; ++i) a.p[i] = (Native)((NativeInt)a.p[i] | (NativeInt)v.p[i]);
  }
  INFERKIT_MEMBER F32x16 value() const { return a; }
#else
  float a[kLanes] = {};
  INFERKIT_MEMBER void add(const float* p, int64_t stride, Lanes lanes) {
    if (kStride == 1 && lanes.high - lanes.low == kLanes) return store(a, load(p));
    for (int i = lanes.low; i < lanes.high; ++i) a[i] = p[i * stride];
  }
  INFERKIT_MEMBER F32x16 value() const { return load(a); }
#endif
};

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
