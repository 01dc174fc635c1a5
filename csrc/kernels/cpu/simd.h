// Sixteen logical lanes of float on every tier, so that a kernel is written once and its bits cannot depend on the
// width of the registers. A file <tier>.cc defines INFERKIT_TIER before it includes this. Everything here has internal
// linkage: inline code compiled for AVX-512 must never be merged with another file's.
#pragma once
#include "kernels/cpu/intrinsics.h"

#if !defined(INFERKIT_TIER)
#error "define INFERKIT_TIER (avx512, avx2 or baseline) before including simd.h"
#endif
#define INFERKIT_INLINE static inline __attribute__((always_inline))
#define INFERKIT_MEMBER inline __attribute__((always_inline))
#define INFERKIT_LAMBDA __attribute__((always_inline))

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

/// The tier that this file was compiled for, by the compiler's own account.
[[maybe_unused]] const char* compiled_isa() {
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
  return "avx512";
#elif defined(__AVX2__) && defined(__FMA__)
  return "avx2";
#else
  return "baseline";
#endif
}

typedef float F32x4 __attribute__((vector_size(16)));
typedef float F32x8 __attribute__((vector_size(32)));

// A native vector and the operations that GCC's vector types do not spell. min and max are a < b ? a : b and
// a > b ? a : b on every tier: where an operand is NaN, the answer is b.
#if defined(__AVX512F__)
// The maskz forms with a full mask are the plain instructions; GCC 12 warns falsely about the plain intrinsics.
constexpr int kNativeLanes = 16;
typedef float Native __attribute__((vector_size(64)));
INFERKIT_INLINE Native native_fma(Native a, Native b, Native c) { return _mm512_fmadd_ps(a, b, c); }
INFERKIT_INLINE Native native_min(Native a, Native b) { return _mm512_maskz_min_ps(0xffff, a, b); }
INFERKIT_INLINE Native native_max(Native a, Native b) { return _mm512_maskz_max_ps(0xffff, a, b); }
INFERKIT_INLINE Native native_sqrt(Native a) { return _mm512_maskz_sqrt_ps(0xffff, a); }
INFERKIT_INLINE Native native_round(Native a) { return _mm512_maskz_roundscale_ps(0xffff, a, 0x08); }
INFERKIT_INLINE Native native_floor(Native a) { return _mm512_maskz_roundscale_ps(0xffff, a, 0x09); }
INFERKIT_INLINE Native native_ceil(Native a) { return _mm512_maskz_roundscale_ps(0xffff, a, 0x0a); }
#elif defined(__AVX2__)
constexpr int kNativeLanes = 8;
typedef F32x8 Native;
INFERKIT_INLINE Native native_fma(Native a, Native b, Native c) { return _mm256_fmadd_ps(a, b, c); }
INFERKIT_INLINE Native native_min(Native a, Native b) { return _mm256_min_ps(a, b); }
INFERKIT_INLINE Native native_max(Native a, Native b) { return _mm256_max_ps(a, b); }
INFERKIT_INLINE Native native_sqrt(Native a) { return _mm256_sqrt_ps(a); }
INFERKIT_INLINE Native native_round(Native a) { return _mm256_round_ps(a, 0x08); }
INFERKIT_INLINE Native native_floor(Native a) { return _mm256_round_ps(a, 0x09); }
INFERKIT_INLINE Native native_ceil(Native a) { return _mm256_round_ps(a, 0x0a); }
#elif defined(__x86_64__)
constexpr int kNativeLanes = 4;
typedef F32x4 Native;
INFERKIT_INLINE Native native_fma(Native a, Native b, Native c) { return a * b + c; }
INFERKIT_INLINE Native native_min(Native a, Native b) { return _mm_min_ps(a, b); }
INFERKIT_INLINE Native native_max(Native a, Native b) { return _mm_max_ps(a, b); }
INFERKIT_INLINE Native native_sqrt(Native a) { return _mm_sqrt_ps(a); }
INFERKIT_INLINE Native native_round(Native a) { return _mm_round_ps(a, 0x08); }
INFERKIT_INLINE Native native_floor(Native a) { return _mm_round_ps(a, 0x09); }
INFERKIT_INLINE Native native_ceil(Native a) { return _mm_round_ps(a, 0x0a); }
#elif defined(__aarch64__)
constexpr int kNativeLanes = 4;
typedef F32x4 Native;
INFERKIT_INLINE Native native_fma(Native a, Native b, Native c) {
  return (Native)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
INFERKIT_INLINE Native native_min(Native a, Native b) { return a < b ? a : b; }
INFERKIT_INLINE Native native_max(Native a, Native b) { return a > b ? a : b; }
INFERKIT_INLINE Native native_sqrt(Native a) { return (Native)vsqrtq_f32((float32x4_t)a); }
INFERKIT_INLINE Native native_round(Native a) { return (Native)vrndnq_f32((float32x4_t)a); }
INFERKIT_INLINE Native native_floor(Native a) { return (Native)vrndmq_f32((float32x4_t)a); }
INFERKIT_INLINE Native native_ceil(Native a) { return (Native)vrndpq_f32((float32x4_t)a); }
#else
#error "no vectors are known for this architecture"
#endif

typedef int32_t NativeInt __attribute__((vector_size(sizeof(Native))));
typedef uint32_t NativeBits __attribute__((vector_size(sizeof(Native))));  // where integers may wrap
typedef float UnalignedNative __attribute__((vector_size(sizeof(Native)), aligned(4), may_alias));

constexpr int kLanes = 16;
constexpr int kParts = kLanes / kNativeLanes;

struct F32x16 {
  using Scalar = float;
  Native p[kParts];
};
struct I32x16 {
  NativeInt p[kParts];
};
/// All ones or all zeros per lane.
struct Mask16 {
  NativeInt p[kParts];
};

#define INFERKIT_EACH_PART _Pragma("GCC unroll 4") for (int i = 0; i < kParts; ++i)
#define INFERKIT_LANEWISE(result, name, parameters, expression) \
  INFERKIT_INLINE result name parameters {                      \
    result r;                                                   \
    INFERKIT_EACH_PART r.p[i] = expression;                     \
    return r;                                                   \
  }
INFERKIT_LANEWISE(F32x16, operator+, (F32x16 a, F32x16 b), a.p[i] + b.p[i])
INFERKIT_LANEWISE(F32x16, operator-, (F32x16 a, F32x16 b), a.p[i] - b.p[i])
INFERKIT_LANEWISE(F32x16, operator*, (F32x16 a, F32x16 b), a.p[i] * b.p[i])
INFERKIT_LANEWISE(F32x16, operator/, (F32x16 a, F32x16 b), a.p[i] / b.p[i])
INFERKIT_LANEWISE(F32x16, operator-, (F32x16 a), -a.p[i])
/// a b + c, in one rounding above the x86 baseline and on aarch64.
INFERKIT_LANEWISE(F32x16, fma, (F32x16 a, F32x16 b, F32x16 c), native_fma(a.p[i], b.p[i], c.p[i]))
INFERKIT_LANEWISE(F32x16, min, (F32x16 a, F32x16 b), native_min(a.p[i], b.p[i]))
INFERKIT_LANEWISE(F32x16, max, (F32x16 a, F32x16 b), native_max(a.p[i], b.p[i]))
INFERKIT_LANEWISE(F32x16, sqrt, (F32x16 a), native_sqrt(a.p[i]))
INFERKIT_LANEWISE(F32x16, round_even, (F32x16 a), native_round(a.p[i]))
INFERKIT_LANEWISE(F32x16, floor, (F32x16 a), native_floor(a.p[i]))
INFERKIT_LANEWISE(F32x16, ceil, (F32x16 a), native_ceil(a.p[i]))
INFERKIT_LANEWISE(F32x16, abs, (F32x16 a), (Native)((NativeInt)a.p[i] & 0x7fffffff))
/// The magnitude of a (not negative) with the sign of b.
INFERKIT_LANEWISE(F32x16, with_sign, (F32x16 a, F32x16 b),
                  (Native)((NativeInt)a.p[i] | ((NativeInt)b.p[i] & static_cast<int32_t>(0x80000000))))
INFERKIT_LANEWISE(Mask16, operator<, (F32x16 a, F32x16 b), a.p[i] < b.p[i])
INFERKIT_LANEWISE(Mask16, operator<=, (F32x16 a, F32x16 b), a.p[i] <= b.p[i])
INFERKIT_LANEWISE(Mask16, operator>, (F32x16 a, F32x16 b), a.p[i] > b.p[i])
INFERKIT_LANEWISE(Mask16, operator==, (F32x16 a, F32x16 b), a.p[i] == b.p[i])
INFERKIT_LANEWISE(Mask16, is_nan, (F32x16 a), a.p[i] != a.p[i])
INFERKIT_LANEWISE(F32x16, blend, (Mask16 m, F32x16 yes, F32x16 no), m.p[i] ? yes.p[i] : no.p[i])
INFERKIT_LANEWISE(F32x16, broadcast, (float v), v - Native{})
INFERKIT_LANEWISE(I32x16, bits_of, (F32x16 a), (NativeInt)a.p[i])
INFERKIT_LANEWISE(F32x16, float_of_bits, (I32x16 a), (Native)a.p[i])
INFERKIT_LANEWISE(F32x16, to_float, (I32x16 a), __builtin_convertvector(a.p[i], Native))
INFERKIT_LANEWISE(I32x16, operator+, (I32x16 a, int32_t b), (NativeInt)((NativeBits)a.p[i] + static_cast<uint32_t>(b)))
INFERKIT_LANEWISE(I32x16, operator-, (I32x16 a, I32x16 b), (NativeInt)((NativeBits)a.p[i] - (NativeBits)b.p[i]))
INFERKIT_LANEWISE(I32x16, operator&, (I32x16 a, int32_t b), a.p[i] & b)
INFERKIT_LANEWISE(I32x16, shift_left_23, (I32x16 a), (NativeInt)((NativeBits)a.p[i] << 23))
INFERKIT_LANEWISE(I32x16, shift_right_23, (I32x16 a), a.p[i] >> 23)
INFERKIT_LANEWISE(I32x16, shift_right_1, (I32x16 a), a.p[i] >> 1)
#undef INFERKIT_LANEWISE

INFERKIT_INLINE F32x16 load(const float* x) {
  F32x16 r;
  INFERKIT_EACH_PART r.p[i] = (Native) * (const UnalignedNative*)(x + i * kNativeLanes);
  return r;
}
INFERKIT_INLINE void store(float* y, F32x16 v) {
  INFERKIT_EACH_PART*(UnalignedNative*)(y + i * kNativeLanes) = (UnalignedNative)v.p[i];
}

// The first n < 16 lanes; memory past them is not touched, and the other lanes load `fill`.
#if defined(__AVX512F__)
INFERKIT_INLINE F32x16 load_partial(const float* x, int64_t n, float fill = 0) {
  return {{_mm512_mask_loadu_ps(_mm512_set1_ps(fill), static_cast<__mmask16>((1u << n) - 1), x)}};
}
INFERKIT_INLINE void store_partial(float* y, F32x16 v, int64_t n) {
  _mm512_mask_storeu_ps(y, static_cast<__mmask16>((1u << n) - 1), v.p[0]);
}
#elif defined(__AVX2__)
INFERKIT_INLINE __m256i first_lanes(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INFERKIT_INLINE F32x16 load_partial(const float* x, int64_t n, float fill = 0) {
  const __m256i low = first_lanes(n), high = first_lanes(n - 8);
  const __m256 other = _mm256_set1_ps(fill);
  return {{_mm256_blendv_ps(other, _mm256_maskload_ps(x, low), _mm256_castsi256_ps(low)),
           _mm256_blendv_ps(other, _mm256_maskload_ps(x + 8, high), _mm256_castsi256_ps(high))}};
}
INFERKIT_INLINE void store_partial(float* y, F32x16 v, int64_t n) {
  _mm256_maskstore_ps(y, first_lanes(n), v.p[0]);
  if (n > 8) _mm256_maskstore_ps(y + 8, first_lanes(n - 8), v.p[1]);
}
#else
// Calls: lane by lane in every tail of every loop they would be most of a kernel's code.
__attribute__((noinline, unused)) static F32x16 load_partial(const float* x, int64_t n, float fill = 0) {
  float lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = i < n ? x[i] : fill;
  return load(lanes);
}
__attribute__((noinline, unused)) static void store_partial(float* y, F32x16 v, int64_t n) {
  float lanes[kLanes];
  store(lanes, v);
  for (int64_t i = 0; i < n; ++i) y[i] = lanes[i];
}
#endif

// Halving trees, the same on every tier: lanes 8 apart, then 4, 2, 1.
INFERKIT_INLINE F32x4 high_pair(F32x4 v) { return __builtin_shufflevector(v, v, 2, 3, 2, 3); }
INFERKIT_INLINE F32x4 second(F32x4 v) { return __builtin_shufflevector(v, v, 1, 1, 1, 1); }

#define INFERKIT_TREE(name, combine)                                                        \
  INFERKIT_INLINE float name(F32x16 v) {                                                    \
    const F32x4 a = quarter<0>(v), b = quarter<1>(v), c = quarter<2>(v), d = quarter<3>(v); \
    const F32x4 ac = combine(a, c), bd = combine(b, d);                                     \
    const F32x4 four = combine(ac, bd);                                                     \
    const F32x4 two = combine(four, high_pair(four));                                       \
    return combine(two, second(two))[0];                                                    \
  }
/// Lanes 4q to 4q + 3.
template <int q>
INFERKIT_INLINE F32x4 quarter(F32x16 v) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(v.p[0], v.p[0], 4 * q, 4 * q + 1, 4 * q + 2, 4 * q + 3);
#elif defined(__AVX2__)
  constexpr int s = 4 * (q % 2);
  return __builtin_shufflevector(v.p[q / 2], v.p[q / 2], s, s + 1, s + 2, s + 3);
#else
  return v.p[q];
#endif
}
#define INFERKIT_ADD(a, b) ((a) + (b))
#define INFERKIT_MUL(a, b) ((a) * (b))
#define INFERKIT_MIN(a, b) ((a) < (b) ? (a) : (b))
#define INFERKIT_MAX(a, b) ((a) > (b) ? (a) : (b))
INFERKIT_TREE(horizontal_sum, INFERKIT_ADD)
INFERKIT_TREE(horizontal_product, INFERKIT_MUL)
INFERKIT_TREE(horizontal_min, INFERKIT_MIN)
INFERKIT_TREE(horizontal_max, INFERKIT_MAX)
#undef INFERKIT_ADD
#undef INFERKIT_MUL
#undef INFERKIT_MIN
#undef INFERKIT_MAX
#undef INFERKIT_TREE

/// Is any lane of the mask set?
INFERKIT_INLINE bool any(Mask16 m) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)m.p[0], (__m512i)m.p[0]) != 0;
#elif defined(__AVX2__)
  return !_mm256_testz_si256((__m256i)(m.p[0] | m.p[1]), (__m256i)(m.p[0] | m.p[1]));
#else
  NativeInt all = m.p[0] | m.p[1] | m.p[2] | m.p[3];
  return (all[0] | all[1] | all[2] | all[3]) != 0;
#endif
}

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
/// Odd elements of 32 neighbours.
INFERKIT_INLINE F32x16 odds(F32x16 a, F32x16 b) {
#if defined(__AVX512F__)
  return {{__builtin_shufflevector(a.p[0], b.p[0], 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)}};
#elif defined(__AVX2__)
  return {{__builtin_shufflevector(a.p[0], a.p[1], 1, 3, 5, 7, 9, 11, 13, 15),
           __builtin_shufflevector(b.p[0], b.p[1], 1, 3, 5, 7, 9, 11, 13, 15)}};
#else
  return {{__builtin_shufflevector(a.p[0], a.p[1], 1, 3, 5, 7), __builtin_shufflevector(a.p[2], a.p[3], 1, 3, 5, 7),
           __builtin_shufflevector(b.p[0], b.p[1], 1, 3, 5, 7), __builtin_shufflevector(b.p[2], b.p[3], 1, 3, 5, 7)}};
#endif
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
