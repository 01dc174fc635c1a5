// Sixteen bytes or int32 as lanes and back, in one tier. The first n < 16 go by way of a whole block on the stack.
#pragma once
#include "kernels/cpu/simd.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

template <class B>
constexpr bool kSigned = static_cast<B>(-1) < 0;

INFERKIT_INLINE I32x16 load_whole(const int32_t* x) {
  I32x16 r;
  memcpy(&r, x, sizeof(r));
  return r;
}
INFERKIT_INLINE F32x16 load_whole(const float* x) { return load(x); }
INFERKIT_INLINE void store_whole(float* y, F32x16 v) { store(y, v); }

#if defined(__AVX512F__)
INFERKIT_INLINE __m128i load_bytes(const void* x) { return _mm_loadu_si128(static_cast<const __m128i*>(x)); }
INFERKIT_INLINE I32x16 load_whole(const uint8_t* x) {
  return {{(NativeInt)_mm512_maskz_cvtepu8_epi32(0xffff, load_bytes(x))}};
}
INFERKIT_INLINE I32x16 load_whole(const int8_t* x) {
  return {{(NativeInt)_mm512_maskz_cvtepi8_epi32(0xffff, load_bytes(x))}};
}
#elif defined(__AVX2__)
INFERKIT_INLINE __m128i load_bytes(const void* x) { return _mm_loadl_epi64(static_cast<const __m128i*>(x)); }
INFERKIT_INLINE I32x16 load_whole(const uint8_t* x) {
  return {{(NativeInt)_mm256_cvtepu8_epi32(load_bytes(x)), (NativeInt)_mm256_cvtepu8_epi32(load_bytes(x + 8))}};
}
INFERKIT_INLINE I32x16 load_whole(const int8_t* x) {
  return {{(NativeInt)_mm256_cvtepi8_epi32(load_bytes(x)), (NativeInt)_mm256_cvtepi8_epi32(load_bytes(x + 8))}};
}
#elif defined(__x86_64__)
INFERKIT_INLINE __m128i load_bytes(const void* x) {
  int32_t four;
  memcpy(&four, x, sizeof(four));
  return _mm_cvtsi32_si128(four);
}
INFERKIT_INLINE I32x16 load_whole(const uint8_t* x) {
  I32x16 r;
  INFERKIT_EACH_PART r.p[i] = (NativeInt)_mm_cvtepu8_epi32(load_bytes(x + 4 * i));
  return r;
}
INFERKIT_INLINE I32x16 load_whole(const int8_t* x) {
  I32x16 r;
  INFERKIT_EACH_PART r.p[i] = (NativeInt)_mm_cvtepi8_epi32(load_bytes(x + 4 * i));
  return r;
}
#else
INFERKIT_INLINE I32x16 load_whole(const uint8_t* x) {
  const uint8x16_t all = vld1q_u8(x);
  const uint16x8_t low = vmovl_u8(vget_low_u8(all)), high = vmovl_u8(vget_high_u8(all));
  return {{(NativeInt)vmovl_u16(vget_low_u16(low)), (NativeInt)vmovl_u16(vget_high_u16(low)),
           (NativeInt)vmovl_u16(vget_low_u16(high)), (NativeInt)vmovl_u16(vget_high_u16(high))}};
}
INFERKIT_INLINE I32x16 load_whole(const int8_t* x) {
  const int8x16_t all = vld1q_s8(x);
  const int16x8_t low = vmovl_s8(vget_low_s8(all)), high = vmovl_s8(vget_high_s8(all));
  return {{(NativeInt)vmovl_s16(vget_low_s16(low)), (NativeInt)vmovl_s16(vget_high_s16(low)),
           (NativeInt)vmovl_s16(vget_low_s16(high)), (NativeInt)vmovl_s16(vget_high_s16(high))}};
}
#endif

/// Each lane must be a number of B.
template <class B>
INFERKIT_INLINE void store_whole(B* y, I32x16 v) {
#if defined(__AVX512F__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(y), _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)v.p[0]));
#elif defined(__x86_64__)
#if defined(__AVX2__)
  const __m128i a = _mm256_castsi256_si128((__m256i)v.p[0]), b = _mm256_extracti128_si256((__m256i)v.p[0], 1);
  const __m128i c = _mm256_castsi256_si128((__m256i)v.p[1]), d = _mm256_extracti128_si256((__m256i)v.p[1], 1);
#else
  const __m128i a = (__m128i)v.p[0], b = (__m128i)v.p[1], c = (__m128i)v.p[2], d = (__m128i)v.p[3];
#endif
  const __m128i ab = _mm_packs_epi32(a, b), cd = _mm_packs_epi32(c, d);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(y), kSigned<B> ? _mm_packs_epi16(ab, cd) : _mm_packus_epi16(ab, cd));
#else
  const int16x8_t low = vcombine_s16(vmovn_s32((int32x4_t)v.p[0]), vmovn_s32((int32x4_t)v.p[1]));
  const int16x8_t high = vcombine_s16(vmovn_s32((int32x4_t)v.p[2]), vmovn_s32((int32x4_t)v.p[3]));
  vst1q_s8(reinterpret_cast<int8_t*>(y), vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
#endif
}

/// The other lanes hold 1, which one may divide by.
template <class T>
INFERKIT_INLINE auto load_first(const T* x, int64_t n) {
  T block[kLanes];
  for (T& v : block) v = 1;
  memcpy(block, x, static_cast<size_t>(n) * sizeof(T));
  return load_whole(block);
}
template <class T, class V>
INFERKIT_INLINE void store_first(T* y, V v, int64_t n) {
  T block[kLanes];
  store_whole(block, v);
  memcpy(y, block, static_cast<size_t>(n) * sizeof(T));
}

/// The nearest number of B, even at a tie, after adding `zero`. The least for NaN.
template <class B>
INFERKIT_INLINE I32x16 to_codes(F32x16 v, F32x16 zero) {
  const F32x16 low = broadcast(kSigned<B> ? -128 : 0), high = broadcast(kSigned<B> ? 127 : 255);
  const F32x16 whole = min(max(round_even(v) + zero, low), high);
  I32x16 r;
  INFERKIT_EACH_PART r.p[i] = __builtin_convertvector(whole.p[i], NativeInt);
  return r;
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
