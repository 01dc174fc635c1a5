// Eight logical lanes of double on every tier, beside the sixteen of float in simd.h: as many bytes, and as much as a
// product needs.
#pragma once
#include "kernels/cpu/simd.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

constexpr int kNativeDoubles = sizeof(Native) / sizeof(double);
typedef double NativeDouble __attribute__((vector_size(sizeof(Native))));
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

#define INFERKIT_LANEWISE(name, parameters, expression) \
  INFERKIT_INLINE F64x8 name parameters {               \
    F64x8 r;                                            \
    INFERKIT_EACH_PART r.p[i] = expression;             \
    return r;                                           \
  }
INFERKIT_LANEWISE(operator+, (F64x8 a, F64x8 b), a.p[i] + b.p[i])
INFERKIT_LANEWISE(operator*, (F64x8 a, F64x8 b), a.p[i] * b.p[i])
/// a b + c, in one rounding above the x86 baseline and on aarch64.
INFERKIT_LANEWISE(fma, (F64x8 a, F64x8 b, F64x8 c), native_fma(a.p[i], b.p[i], c.p[i]))
INFERKIT_LANEWISE(broadcast, (double v), v - NativeDouble{})
INFERKIT_LANEWISE(load, (const double* x), (NativeDouble) * (const UnalignedNativeDouble*)(x + i * kNativeDoubles))
#undef INFERKIT_LANEWISE

INFERKIT_INLINE void store(double* y, F64x8 v) {
  INFERKIT_EACH_PART*(UnalignedNativeDouble*)(y + i * kNativeDoubles) = (UnalignedNativeDouble)v.p[i];
}

// The first n < 8 lanes; memory past them is not touched, and the other lanes load zeros.
#if defined(__AVX512F__)
INFERKIT_INLINE F64x8 load_partial(const double* x, int64_t n) {
  return {{_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1), x)}};
}
INFERKIT_INLINE void store_partial(double* y, F64x8 v, int64_t n) {
  _mm512_mask_storeu_pd(y, static_cast<__mmask8>((1u << n) - 1), v.p[0]);
}
#elif defined(__AVX2__)
INFERKIT_INLINE __m256i first_doubles(int64_t n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}
INFERKIT_INLINE F64x8 load_partial(const double* x, int64_t n) {
  return {{_mm256_maskload_pd(x, first_doubles(n)), _mm256_maskload_pd(x + 4, first_doubles(n - 4))}};
}
INFERKIT_INLINE void store_partial(double* y, F64x8 v, int64_t n) {
  _mm256_maskstore_pd(y, first_doubles(n), v.p[0]);
  if (n > 4) _mm256_maskstore_pd(y + 4, first_doubles(n - 4), v.p[1]);
}
#else
INFERKIT_INLINE F64x8 load_partial(const double* x, int64_t n) {
  double lanes[kDoubles];
  for (int i = 0; i < kDoubles; ++i) lanes[i] = i < n ? x[i] : 0;
  return load(lanes);
}
INFERKIT_INLINE void store_partial(double* y, F64x8 v, int64_t n) {
  double lanes[kDoubles];
  store(lanes, v);
  for (int64_t i = 0; i < n; ++i) y[i] = lanes[i];
}
#endif

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
