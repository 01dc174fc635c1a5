// How a row is folded into lanes; part of row_impl.h. Every sum keeps four F32x16 (element i goes to lane i mod 64),
// over blocks in which each lane sums one chunk (kernels/summation.h); the blocks are added in turn, then the lanes in
// one tree: the order is a function of n alone.
#pragma once
#include <stdint.h>

#include "kernels/cpu/simd.h"
#include "kernels/summation.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

constexpr int kChains = 4;  // hide the latency of an addition

/// Folds f(i, partial n) over the row: `start` is neutral, and f must give `start`'s like in lanes past the end.
/// kWidth: the lanes of a V.
template <int kWidth = kLanes, class V, class F, class Combine>
INFERKIT_INLINE V fold_values(int64_t n, V start, F element, Combine combine) {
  constexpr int64_t kStep = kChains * kWidth, kBlock = kStep * kLongestChunk;
  V total[kChains];
  int64_t i = 0;
  do {
    V acc[kChains];
    _Pragma("GCC unroll 4") for (int c = 0; c < kChains; ++c) acc[c] = start;
    const bool first = i == 0;
    const int64_t end = n - i < kBlock ? n : i + kBlock;
    for (; i + kStep <= end; i += kStep) {
      _Pragma("GCC unroll 4") for (int c = 0; c < kChains; ++c) {
        acc[c] = combine(acc[c], element(i + c * kWidth, kWidth));
      }
    }
    if (i < end) {
      _Pragma("GCC unroll 4") for (int c = 0; c < kChains; ++c, i += kWidth) {
        if (i >= end) break;
        acc[c] = combine(acc[c], element(i, end - i < kWidth ? end - i : kWidth));
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

/// y = f(i, lanes) for the whole row.
template <class F>
INFERKIT_INLINE void each(int64_t n, F f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(i, kLanes);
  if (i < n) f(i, n - i);
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
