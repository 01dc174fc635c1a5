// Loads of some of sixteen lanes, at a stride; part of conv_impl.h.
#pragma once
#include "kernels/cpu/simd.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

/// Even elements of 32 neighbours.
INFERKIT_INLINE F32x16 evens(F32x16 a, F32x16 b) {
#if defined(__AVX512F__)
  return {{__builtin_shufflevector(a.p[0], b.p[0], 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)}};
#elif defined(__AVX2__)
  return {{__builtin_shufflevector(a.p[0], a.p[1], 0, 2, 4, 6, 8, 10, 12, 14),
           __builtin_shufflevector(b.p[0], b.p[1], 0, 2, 4, 6, 8, 10, 12, 14)}};
#else
  return {{__builtin_shufflevector(a.p[0], a.p[1], 0, 2, 4, 6), __builtin_shufflevector(a.p[2], a.p[3], 0, 2, 4, 6),
           __builtin_shufflevector(b.p[0], b.p[1], 0, 2, 4, 6), __builtin_shufflevector(b.p[2], b.p[3], 0, 2, 4, 6)}};
#endif
}

#if defined(__AVX512F__) || defined(__AVX2__)
/// Lanes [low, high) of p, the others 0; memory outside is not touched. low and high may lie outside [0, 16].
INFERKIT_INLINE F32x16 load_range(const float* p, int low, int high) {
#if defined(__AVX512F__)
  const int from = low < 0 ? 0 : low, to = high > kLanes ? kLanes : high;
  const uint32_t mask = to > from ? (1u << to) - (1u << from) : 0;
  return {{(Native)_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), p)}};
#else
  const __m256i first = _mm256_set1_epi32(low - 1), end = _mm256_set1_epi32(high);
  const __m256i left = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), right = _mm256_add_epi32(left, _mm256_set1_epi32(8));
  const __m256i a = _mm256_and_si256(_mm256_cmpgt_epi32(left, first), _mm256_cmpgt_epi32(end, left));
  const __m256i b = _mm256_and_si256(_mm256_cmpgt_epi32(right, first), _mm256_cmpgt_epi32(end, right));
  return {{(Native)_mm256_maskload_ps(p, a), (Native)_mm256_maskload_ps(p + 8, b)}};
#endif
}
#endif

/// Lanes [low, high) are p[lane * stride], the others 0; other memory is not touched. kStride 0 stands for any.
template <int kStride>
INFERKIT_INLINE F32x16 load_lanes(const float* p, int64_t stride, int low, int high) {
  if constexpr (kStride == 1) {
    if (low == 0 && high == kLanes) return load(p);
  }
#if defined(__AVX512F__) || defined(__AVX2__)
  if constexpr (kStride == 1) return load_range(p, low, high);
  if constexpr (kStride == 2) {  // what lies between two lanes exists, too
    return evens(load_range(p, 2 * low, 2 * high - 1), load_range(p + kLanes, 2 * low - kLanes, 2 * high - 1 - kLanes));
  }
#endif
  float lanes[kLanes] = {};
  for (int i = low; i < high; ++i) lanes[i] = p[i * stride];
  return load(lanes);
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
