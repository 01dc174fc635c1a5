// Eight logical lanes of double on every tier, beside the sixteen of float in simd.h: as many bytes, and as much as a
// product and a row need.
#pragma once
#include "kernels/cpu/simd.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

constexpr int kNativeDoubles = sizeof(Native) / sizeof(double);
typedef double NativeDouble __attribute__((vector_size(sizeof(Native))));
typedef int64_t NativeLong __attribute__((vector_size(sizeof(Native))));
typedef uint64_t NativeLongBits __attribute__((vector_size(sizeof(Native))));  // where integers may wrap
typedef double UnalignedNativeDouble __attribute__((vector_size(sizeof(Native)), aligned(8), may_alias));

#if defined(__AVX512F__)
INFERKIT_INLINE NativeDouble native_fma(NativeDouble a, NativeDouble b, NativeDouble c) {
  return _mm512_fmadd_pd(a, b, c);
}
#elif defined(__AVX2__)
INFERKIT_INLINE NativeDouble native_fma(NativeDouble a, NativeDouble b, NativeDouble c) {
  return _mm256_fmadd_pd(a, b, c);
}
#elif defined(__aarch64__)
INFERKIT_INLINE NativeDouble native_fma(NativeDouble a, NativeDouble b, NativeDouble c) {
  return (NativeDouble)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}
#else
INFERKIT_INLINE NativeDouble native_fma(NativeDouble a, NativeDouble b, NativeDouble c) { return a * b + c; }
#endif

constexpr int kDoubles = 8;

struct F64x8 {
  using Scalar = double;
  NativeDouble p[kParts];
};

/// All ones or all zeros per lane.
struct Mask8 {
  NativeLong p[kParts];
};

#define INFERKIT_LANEWISE(name, parameters, expression) \
  INFERKIT_INLINE F64x8 name parameters {               \
    F64x8 r;                                            \
    INFERKIT_EACH_PART r.p[i] = expression;             \
    return r;                                           \
  }
INFERKIT_LANEWISE(operator+, (F64x8 a, F64x8 b), a.p[i] + b.p[i])
INFERKIT_LANEWISE(operator-, (F64x8 a, F64x8 b), a.p[i] - b.p[i])
INFERKIT_LANEWISE(operator*, (F64x8 a, F64x8 b), a.p[i] * b.p[i])
// Where an operand is NaN, the answer is b, as in simd.h.
INFERKIT_LANEWISE(min, (F64x8 a, F64x8 b), a.p[i] < b.p[i] ? a.p[i] : b.p[i])
INFERKIT_LANEWISE(max, (F64x8 a, F64x8 b), a.p[i] > b.p[i] ? a.p[i] : b.p[i])
INFERKIT_LANEWISE(blend, (Mask8 m, F64x8 yes, F64x8 no), m.p[i] ? yes.p[i] : no.p[i])
/// 2^n for the n in [-1022, 1023] that adding 1.5 2^52 to it left in the low bits of v.
INFERKIT_LANEWISE(power_of_two_in, (F64x8 v), (NativeDouble)(((NativeLongBits)v.p[i] + 1023) << 52))
/// a b + c, in one rounding above the x86 baseline and on aarch64.
INFERKIT_LANEWISE(fma, (F64x8 a, F64x8 b, F64x8 c), native_fma(a.p[i], b.p[i], c.p[i]))
INFERKIT_LANEWISE(broadcast, (double v), v - NativeDouble{})
INFERKIT_LANEWISE(load, (const double* x), (NativeDouble) * (const UnalignedNativeDouble*)(x + i * kNativeDoubles))
#undef INFERKIT_LANEWISE

INFERKIT_INLINE Mask8 is_nan(F64x8 a) {
  Mask8 r;
  INFERKIT_EACH_PART r.p[i] = a.p[i] != a.p[i];
  return r;
}

INFERKIT_INLINE void store(double* y, F64x8 v) {
  INFERKIT_EACH_PART*(UnalignedNativeDouble*)(y + i * kNativeDoubles) = (UnalignedNativeDouble)v.p[i];
}

// The first n < 8 lanes; memory past them is not touched, and the other lanes load `fill`.
#if defined(__AVX512F__)
INFERKIT_INLINE F64x8 load_partial(const double* x, int64_t n, double fill = 0) {
  return {{_mm512_mask_loadu_pd(_mm512_set1_pd(fill), static_cast<__mmask8>((1u << n) - 1), x)}};
}
INFERKIT_INLINE void store_partial(double* y, F64x8 v, int64_t n) {
  _mm512_mask_storeu_pd(y, static_cast<__mmask8>((1u << n) - 1), v.p[0]);
}
#elif defined(__AVX2__)
INFERKIT_INLINE __m256i first_doubles(int64_t n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}
INFERKIT_INLINE F64x8 load_partial(const double* x, int64_t n, double fill = 0) {
  const __m256i low = first_doubles(n), high = first_doubles(n - 4);
  const __m256d other = _mm256_set1_pd(fill);
  return {{_mm256_blendv_pd(other, _mm256_maskload_pd(x, low), _mm256_castsi256_pd(low)),
           _mm256_blendv_pd(other, _mm256_maskload_pd(x + 4, high), _mm256_castsi256_pd(high))}};
}
INFERKIT_INLINE void store_partial(double* y, F64x8 v, int64_t n) {
  _mm256_maskstore_pd(y, first_doubles(n), v.p[0]);
  if (n > 4) _mm256_maskstore_pd(y + 4, first_doubles(n - 4), v.p[1]);
}
#else
INFERKIT_INLINE F64x8 load_partial(const double* x, int64_t n, double fill = 0) {
  double lanes[kDoubles];
  for (int i = 0; i < kDoubles; ++i) lanes[i] = i < n ? x[i] : fill;
  return load(lanes);
}
INFERKIT_INLINE void store_partial(double* y, F64x8 v, int64_t n) {
  double lanes[kDoubles];
  store(lanes, v);
  for (int64_t i = 0; i < n; ++i) y[i] = lanes[i];
}
#endif

// Halving trees, the same on every tier: lanes 4 apart, then 2, 1.
INFERKIT_INLINE double horizontal_sum(F64x8 v) {
  double a[kDoubles];
  store(a, v);
  return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
}
/// NaN where a lane is.
INFERKIT_INLINE double horizontal_max(F64x8 v) {
  double a[kDoubles];
  store(a, v);
  double top = a[0];
  for (int i = 1; i < kDoubles; ++i) top = top != top || top > a[i] ? top : a[i];
  return top;
}

/// The lanes that hold a T.
template <class T>
struct Vector;
template <>
struct Vector<float> {
  using Type = F32x16;
};
template <>
struct Vector<double> {
  using Type = F64x8;
};
template <class T>
using VectorOf = typename Vector<T>::Type;

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
