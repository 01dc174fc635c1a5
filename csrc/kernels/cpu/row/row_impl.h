// Row functions of one tier; included by <tier>.cc.
#pragma once
#include "kernels/cpu/row/columns_impl.h"
#include "kernels/cpu/row/double_impl.h"
#include "kernels/cpu/row/fold_impl.h"
#include "kernels/cpu/row/row.h"
#include "kernels/cpu/vmath/vmath_inl.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

float sum(const float* x, int64_t n) {
  return horizontal_sum(
      fold(n, 0, [=](int64_t i, int64_t some) INFERKIT_LAMBDA { return load_some(x + i, some, 0); }, Add{}));
}
float mean(const float* x, int64_t n) { return sum(x, n) / static_cast<float>(n); }
float sum_squares(const float* x, int64_t n) {
  return horizontal_sum(fold(
      n, 0,
      [=](int64_t i, int64_t some) INFERKIT_LAMBDA {
        const F32x16 v = load_some(x + i, some, 0);
        return v * v;
      },
      Add{}));
}
float sum_abs(const float* x, int64_t n) {
  return horizontal_sum(
      fold(n, 0, [=](int64_t i, int64_t some) INFERKIT_LAMBDA { return abs(load_some(x + i, some, 0)); }, Add{}));
}
float product(const float* x, int64_t n) {
  return horizontal_product(
      fold(n, 1, [=](int64_t i, int64_t some) INFERKIT_LAMBDA { return load_some(x + i, some, 1); }, Multiply{}));
}
float largest(const float* x, int64_t n) {
  const float low = -__builtin_inff();
  const F32x16 v =
      fold(n, low, [=](int64_t i, int64_t some) INFERKIT_LAMBDA { return load_some(x + i, some, low); }, Larger{});
  return any(is_nan(v)) ? __builtin_nanf("") : horizontal_max(v);
}
float smallest(const float* x, int64_t n) {
  const float high = __builtin_inff();
  const F32x16 v =
      fold(n, high, [=](int64_t i, int64_t some) INFERKIT_LAMBDA { return load_some(x + i, some, high); }, Smaller{});
  return any(is_nan(v)) ? __builtin_nanf("") : horizontal_min(v);
}

void softmax(const float* x, float* y, int64_t n, float scale, const float* mask) {
  const F32x16 factor = broadcast(scale);
  const float low = -__builtin_inff();
  if (scale != 1.0f || mask) {
    each(n, [=](int64_t i, int64_t some) INFERKIT_LAMBDA {
      const F32x16 v = load_some(x + i, some, 0) * factor;
      store_some(y + i, mask ? v + load_some(mask + i, some, 0) : v, some);
    });
    x = y;
  }
  const F32x16 peak = broadcast(largest(x, n));
  const float total = horizontal_sum(fold(
      n, 0,
      [=](int64_t i, int64_t some) INFERKIT_LAMBDA {
        const F32x16 e = exp(load_some(x + i, some, low) - peak);
        store_some(y + i, e, some);
        return e;  // past the end exp(-inf) = 0, and NaN only where the whole row is NaN anyway
      },
      Add{}));
  const F32x16 inverse = broadcast(1.0f / total);
  each(n,
       [=](int64_t i, int64_t some) INFERKIT_LAMBDA { store_some(y + i, load_some(y + i, some, 0) * inverse, some); });
}

void log_softmax(const float* x, float* y, int64_t n) {
  const float low = -__builtin_inff();
  const F32x16 peak = broadcast(largest(x, n));
  const float total = horizontal_sum(fold(
      n, 0, [=](int64_t i, int64_t some) INFERKIT_LAMBDA { return exp(load_some(x + i, some, low) - peak); }, Add{}));
  const F32x16 log_total = log(broadcast(total));
  each(n, [=](int64_t i, int64_t some)
              INFERKIT_LAMBDA { store_some(y + i, (load_some(x + i, some, 0) - peak) - log_total, some); });
}

/// Rows with an element for each lane at most, which stay in registers: kVectors vectors, `last` elements in the last.
/// The same bits as above: what is left out would add zeros. With no loop over a row several are under way at once.
template <int kVectors, bool kLog>
void short_rows(const float* x, float* y, int64_t n, int64_t rows) {
  const float low = -__builtin_inff();
  const int64_t last = n - (kVectors - 1) * kLanes;
  const auto all = [](F32x16(&v)[kVectors], auto combine) INFERKIT_LAMBDA {
    F32x16 first = v[0];
    if constexpr (kVectors > 1) first = combine(first, v[1]);
    if constexpr (kVectors == 3) first = combine(first, v[2]);
    if constexpr (kVectors == 4) first = combine(first, combine(v[2], v[3]));
    return first;
  };
  for (int64_t row = 0; row < rows; ++row, x += n, y += n) {
    F32x16 v[kVectors], e[kVectors];
    _Pragma("GCC unroll 4") for (int c = 0; c < kVectors; ++c) {
      v[c] = load_some(x + c * kLanes, c + 1 < kVectors ? kLanes : last, low);
    }
    const F32x16 top = all(v, Larger{});
    const F32x16 peak = broadcast(any(is_nan(top)) ? __builtin_nanf("") : horizontal_max(top));
    _Pragma("GCC unroll 4") for (int c = 0; c < kVectors; ++c) e[c] = exp(v[c] - peak);
    const float total = horizontal_sum(all(e, Add{}));
    const F32x16 factor = kLog ? log(broadcast(total)) : broadcast(1.0f / total);
    _Pragma("GCC unroll 4") for (int c = 0; c < kVectors; ++c) {
      store_some(y + c * kLanes, kLog ? (v[c] - peak) - factor : e[c] * factor, c + 1 < kVectors ? kLanes : last);
    }
  }
}

template <bool kLog>
void some_softmax_rows(const float* x, float* y, int64_t n, int64_t rows) {
  switch ((n + kLanes - 1) / kLanes) {
    case 1:
      return short_rows<1, kLog>(x, y, n, rows);
    case 2:
      return short_rows<2, kLog>(x, y, n, rows);
    case 3:
      return short_rows<3, kLog>(x, y, n, rows);
    case 4:
      return short_rows<4, kLog>(x, y, n, rows);
  }
  for (int64_t row = 0; row < rows; ++row, x += n, y += n) {
    if (kLog) {
      log_softmax(x, y, n);
    } else {
      softmax(x, y, n, 1, nullptr);
    }
  }
}

/// y = shifted(x) * factor * scale + bias.
template <class Shifted>
INFERKIT_INLINE void scale_and_bias(const NormArgs& g, int64_t row, F32x16 factor, Shifted shifted) {
  const float* x = g.x + row * g.n;
  float* y = g.y + row * g.n;
  each(g.n, [&](int64_t i, int64_t some) INFERKIT_LAMBDA {
    F32x16 v = shifted(load_some(x + i, some, 0)) * factor;
    if (g.scale) v = v * load_some(g.scale + i, some, 0);
    if (g.bias) v = v + load_some(g.bias + i, some, 0);
    store_some(y + i, v, some);
  });
}

// Between two passes over a row lie a tree over the lanes, a division and a root, one after the other: meanwhile the
// passes over other rows run. All stay in L1.
constexpr int64_t kRowsAtOnce = 4, kFloatsAtOnce = 4096;

/// f(first row, count) for some rows at a time.
template <class F>
INFERKIT_INLINE void some_rows(const NormArgs& g, F f) {
  const int64_t most = g.n * kRowsAtOnce <= kFloatsAtOnce ? kRowsAtOnce : g.n * 2 <= kFloatsAtOnce ? 2 : 1;
  for (int64_t row = 0; row < g.rows; row += most) f(row, g.rows - row < most ? g.rows - row : most);
}

/// The mean in float32 is off by up to some units in its last place, which for values far from zero is much of their
/// spread. What is left when it is subtracted has its digits, so the mean of that is the rest of the mean: the
/// corrected two-pass algorithm (Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983).
void layer_norm(const NormArgs& g) {
  const auto count = static_cast<float>(g.n);
  some_rows(g, [&](int64_t first, int64_t rows) INFERKIT_LAMBDA {
    float center[kRowsAtOnce], rest[kRowsAtOnce], factor[kRowsAtOnce];
    for (int64_t r = 0; r < rows; ++r) center[r] = mean(g.x + (first + r) * g.n, g.n);
    for (int64_t r = 0; r < rows; ++r) {
      const float *x = g.x + (first + r) * g.n, middle = center[r];
      const F32x16 shift = broadcast(middle);
      const Sums sums = fold_values(
          g.n, Sums{broadcast(0.0f), broadcast(0.0f)},
          [=](int64_t i, int64_t some) INFERKIT_LAMBDA {
            const F32x16 v = load_some(x + i, some, middle) - shift;
            return Sums{v, v * v};
          },
          AddSums{});
      rest[r] = horizontal_sum(sums.plain) / count;
      float variance = horizontal_sum(sums.squares) / count - rest[r] * rest[r];
      if (variance < 0) variance = 0;  // of equal values, by rounding; NaN stays
      factor[r] = 1.0f / __builtin_sqrtf(variance + g.epsilon);
    }
    for (int64_t r = 0; r < rows; ++r) {
      const F32x16 shift = broadcast(center[r]), fine = broadcast(rest[r]);
      scale_and_bias(g, first + r, broadcast(factor[r]), [=](F32x16 v) INFERKIT_LAMBDA { return (v - shift) - fine; });
    }
  });
}

void rms_norm(const NormArgs& g) {
  const auto count = static_cast<float>(g.n);
  some_rows(g, [&](int64_t first, int64_t rows) INFERKIT_LAMBDA {
    float factor[kRowsAtOnce];
    for (int64_t r = 0; r < rows; ++r) {
      factor[r] = 1.0f / __builtin_sqrtf(sum_squares(g.x + (first + r) * g.n, g.n) / count + g.epsilon);
    }
    for (int64_t r = 0; r < rows; ++r) {
      scale_and_bias(g, first + r, broadcast(factor[r]), [](F32x16 v) INFERKIT_LAMBDA { return v; });
    }
  });
}

}  // namespace

extern const RowKernels kRow;
// The reductions stand in the order of enum Reduce.
const RowKernels kRow = {compiled_isa,
                         {sum, mean, largest, smallest, sum_squares, sum_abs, product},
                         {columns::sum, columns::mean, columns::largest, columns::smallest, columns::sum_squares,
                          columns::sum_abs, columns::product},
                         columns::exponentials,
                         softmax,
                         log_softmax,
                         some_softmax_rows<false>,
                         some_softmax_rows<true>,
                         layer_norm,
                         rms_norm,
                         softmax64,
                         exponentials64};

}  // namespace inferkit::kernels::INFERKIT_TIER
