// Rows of double; part of row_impl.h. As those of float, with 32 lanes where these have 64: as many registers.
#pragma once
#include "kernels/cpu/row/fold_impl.h"
#include "kernels/cpu/simd_double.h"
#include "kernels/cpu/vmath/exp_double_inl.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

/// The lanes past `n` are `fill`.
INFERKIT_INLINE F64x8 load_some(const double* x, int64_t n, double fill) {
  return n == kDoubles ? load(x) : load_partial(x, n, fill);
}
INFERKIT_INLINE void store_some(double* y, F64x8 v, int64_t n) { n == kDoubles ? store(y, v) : store_partial(y, v, n); }

struct AddDoubles {
  INFERKIT_MEMBER F64x8 operator()(F64x8 a, F64x8 b) const { return a + b; }
};
struct LargerDoubles {
  INFERKIT_MEMBER F64x8 operator()(F64x8 a, F64x8 b) const { return blend(is_nan(a), a, max(a, b)); }
};

INFERKIT_INLINE double largest64(const double* x, int64_t n) {
  const double low = -__builtin_inf();
  return horizontal_max(fold_values<kDoubles>(
      n, broadcast(low), [=](int64_t i, int64_t some) INFERKIT_LAMBDA { return load_some(x + i, some, low); },
      LargerDoubles{}));
}

/// The sum of e^(x - top), each of which goes to e where that is not null.
INFERKIT_INLINE double sum_of_exponentials(const double* x, double* e, int64_t n, double top) {
  const F64x8 peak = broadcast(top);
  return horizontal_sum(fold_values<kDoubles>(
      n, broadcast(0.0),
      [=](int64_t i, int64_t some) INFERKIT_LAMBDA {
        const F64x8 v = exp(load_some(x + i, some, -__builtin_inf()) - peak);
        if (e) store_some(e + i, v, some);
        return v;  // past the end 0, and NaN only where the whole row is NaN anyway
      },
      AddDoubles{}));
}

[[gnu::noinline]] double exponentials64(const double* x, double* e, int64_t n, double* top) {
  *top = largest64(x, n);
  return sum_of_exponentials(x, e, n, *top);
}

void softmax64(const double* x, double* y, int64_t n) {
  double top;
  const F64x8 inverse = broadcast(1.0 / exponentials64(x, y, n, &top));
  int64_t i = 0;
  for (; i + kDoubles <= n; i += kDoubles) store(y + i, load(y + i) * inverse);
  if (i < n) store_partial(y + i, load_partial(y + i, n - i) * inverse, n - i);
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
