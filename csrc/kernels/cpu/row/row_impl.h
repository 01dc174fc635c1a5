// Row functions of one tier; included by <tier>.cc. Every sum keeps four F32x16 (element i goes to lane i mod 64), over
// blocks in which each lane sums one chunk (kernels/summation.h); the blocks are added in turn, then the lanes in one
// tree: the order is a function of n alone.
#pragma once
#include "kernels/cpu/row/row.h"
#include "kernels/cpu/vmath/vmath_inl.h"
#include "kernels/summation.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

constexpr int kChains = 4;  // hide the latency of an addition

/// Folds f(i, partial n) over the row: `start` is neutral, and f must give `start`'s like in lanes past the end.
template <class V, class F, class Combine>
INFERKIT_INLINE V fold_values(int64_t n, V start, F element, Combine combine) {
  constexpr int64_t kStep = kChains * kLanes, kBlock = kStep * kLongestChunk;
  V total[kChains];
  int64_t i = 0;
  do {
    V acc[kChains];
    _Pragma("GCC unroll 4") for (int c = 0; c < kChains; ++c) acc[c] = start;
    const bool first = i == 0;
    const int64_t end = n - i < kBlock ? n : i + kBlock;
    for (; i + kStep <= end; i += kStep) {
      _Pragma("GCC unroll 4") for (int c = 0; c < kChains; ++c) {
        acc[c] = combine(acc[c], element(i + c * kLanes, kLanes));
      }
    }
    if (i < end) {
      _Pragma("GCC unroll 4") for (int c = 0; c < kChains; ++c, i += kLanes) {
        if (i >= end) break;
        acc[c] = combine(acc[c], element(i, end - i < kLanes ? end - i : kLanes));
      }
    }
    _Pragma("GCC unroll 4") for (int c = 0; c < kChains; ++c) total[c] = first ? acc[c] : combine(total[c], acc[c]);
  } while (i < n);
  return combine(combine(total[0], total[1]), combine(total[2], total[3]));
}
template <class F, class Combine>
INFERKIT_INLINE F32x16 fold(int64_t n, float start, F element, Combine combine) {
  return fold_values(n, broadcast(start), element, combine);
}

/// Two sums in one pass.
struct Sums {
  F32x16 plain, squares;
};
struct AddSums {
  INFERKIT_MEMBER Sums operator()(const Sums& a, const Sums& b) const {
    return {a.plain + b.plain, a.squares + b.squares};
  }
};

INFERKIT_INLINE F32x16 load_some(const float* x, int64_t n, float fill) {
  return n == kLanes ? load(x) : load_partial(x, n, fill);
}
INFERKIT_INLINE void store_some(float* y, F32x16 v, int64_t n) { n == kLanes ? store(y, v) : store_partial(y, v, n); }

struct Add {
  INFERKIT_MEMBER F32x16 operator()(F32x16 a, F32x16 b) const { return a + b; }
};
struct Multiply {
  INFERKIT_MEMBER F32x16 operator()(F32x16 a, F32x16 b) const { return a * b; }
};
// NaN in either operand gives NaN, so that it reaches the end.
struct Larger {
  INFERKIT_MEMBER F32x16 operator()(F32x16 a, F32x16 b) const { return blend(is_nan(a), a, max(a, b)); }
};
struct Smaller {
  INFERKIT_MEMBER F32x16 operator()(F32x16 a, F32x16 b) const { return blend(is_nan(a), a, min(a, b)); }
};

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

/// y = f(i, lanes) for the whole row.
template <class F>
INFERKIT_INLINE void each(int64_t n, F f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(i, kLanes);
  if (i < n) f(i, n - i);
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

/// x + residual, where there is one, in y (and sum); gives where to read it.
INFERKIT_INLINE const float* add_residual(const NormArgs& g) {
  if (!g.residual) {
    if (g.sum && g.sum != g.x) memcpy(g.sum, g.x, static_cast<size_t>(g.n) * sizeof(float));
    return g.x;
  }
  float* to = g.sum ? g.sum : g.y;
  each(g.n, [&](int64_t i, int64_t some) INFERKIT_LAMBDA {
    store_some(to + i, load_some(g.x + i, some, 0) + load_some(g.residual + i, some, 0), some);
  });
  return to;
}

/// y = shifted(x) * factor * scale + bias.
template <class Shifted>
INFERKIT_INLINE void scale_and_bias(const NormArgs& g, const float* x, F32x16 factor, Shifted shifted) {
  each(g.n, [&](int64_t i, int64_t some) INFERKIT_LAMBDA {
    F32x16 v = shifted(load_some(x + i, some, 0)) * factor;
    if (g.scale) v = v * load_some(g.scale + i, some, 0);
    if (g.bias) v = v + load_some(g.bias + i, some, 0);
    store_some(g.y + i, v, some);
  });
}

/// The mean in float32 is off by up to some units in its last place, which for values far from zero is much of their
/// spread. What is left when it is subtracted has its digits, so the mean of that is the rest of the mean: the
/// corrected two-pass algorithm (Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983).
void layer_norm(const NormArgs& g) {
  const float* x = add_residual(g);
  const auto count = static_cast<float>(g.n);
  const float center = mean(x, g.n);
  const F32x16 shift = broadcast(center);
  const Sums sums = fold_values(
      g.n, Sums{broadcast(0), broadcast(0)},
      [=](int64_t i, int64_t some) INFERKIT_LAMBDA {
        const F32x16 v = load_some(x + i, some, center) - shift;
        return Sums{v, v * v};
      },
      AddSums{});
  const float rest = horizontal_sum(sums.plain) / count;
  float variance = horizontal_sum(sums.squares) / count - rest * rest;
  if (variance < 0) variance = 0;  // of equal values, by rounding; NaN stays
  const F32x16 deviation = sqrt(broadcast(variance + g.epsilon)), fine = broadcast(rest);
  scale_and_bias(g, x, broadcast(1.0f) / deviation, [=](F32x16 v) INFERKIT_LAMBDA { return (v - shift) - fine; });
}

void rms_norm(const NormArgs& g) {
  const float* x = add_residual(g);
  const F32x16 root = sqrt(broadcast(sum_squares(x, g.n) / static_cast<float>(g.n) + g.epsilon));
  scale_and_bias(g, x, broadcast(1.0f) / root, [](F32x16 v) INFERKIT_LAMBDA { return v; });
}

}  // namespace

extern const RowKernels kRow;
// The reductions stand in the order of enum Reduce.
const RowKernels kRow = {compiled_isa, {sum, mean, largest, smallest, sum_squares, sum_abs, product},
                         softmax,      log_softmax,
                         layer_norm,   rms_norm};

}  // namespace inferkit::kernels::INFERKIT_TIER
