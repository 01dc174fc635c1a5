// The reductions of row_impl.h for columns of a matrix: neighbouring ones at once, each in the very order of a row that
// holds its elements, so that an answer does not depend on how many columns there are beside it. Part of row_impl.h.
#pragma once
#include "kernels/cpu/row/fold_impl.h"
#include "kernels/cpu/row/row.h"
#include "kernels/cpu/vmath/vmath_inl.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {
namespace columns {

constexpr int kSums = kChains * kLanes;  // that a row is spread over

/// kVectors vectors of columns, or a part of them: `some` in the last.
template <int kVectors>
struct Block {
  int64_t some;
  INFERKIT_MEMBER int64_t lanes(int v) const { return v + 1 < kVectors ? kLanes : some; }
};

/// Sum number `i` of a row's: of the elements i, i + kSums, ..., block by block.
template <int kVectors, class F, class Combine>
INFERKIT_INLINE void lane(F32x16 (&sum)[kVectors], int64_t i, int64_t n, F32x16 start, F element, Combine combine) {
  constexpr int64_t kBlock = kSums * kLongestChunk;
  _Pragma("GCC unroll 8") for (int v = 0; v < kVectors; ++v) sum[v] = start;
  for (int64_t end = 0, r = i; end < n;) {
    const bool first = end == 0;
    end = n - end < kBlock ? n : end + kBlock;
    F32x16 part[kVectors];
    _Pragma("GCC unroll 8") for (int v = 0; v < kVectors; ++v) part[v] = start;
    for (; r < end; r += kSums) {
      _Pragma("GCC unroll 8") for (int v = 0; v < kVectors; ++v) part[v] = combine(part[v], element(r, v));
    }
    _Pragma("GCC unroll 8") for (int v = 0; v < kVectors; ++v) sum[v] = first ? part[v] : combine(sum[v], part[v]);
  }
}

/// y[j] = finish(the fold of element(row, vector) over n > 0 rows), for a block of columns. `combine` is that of a
/// row's vectors, `last` that of the lanes of one; sums that no element falls into are neutral and left out. The tree
/// is walked so that four of its sums are held at most, and none waits in memory.
template <int kVectors, class F, class Combine, class Last, class Finish>
INFERKIT_INLINE void fold_columns(int64_t n, Block<kVectors> block, float* y, float neutral, F element, Combine combine,
                                  Last last, Finish finish) {
  const F32x16 start = broadcast(neutral);
  F32x16 held[4][kVectors], sum[kVectors], other[kVectors], third[kVectors];
  const auto add = [&](F32x16(&to)[kVectors], const F32x16(&with)[kVectors], auto&& how) INFERKIT_LAMBDA {
    _Pragma("GCC unroll 8") for (int v = 0; v < kVectors; ++v) to[v] = how(to[v], with[v]);
  };
  for (int step = 0; step < kLanes; ++step) {
    const int i = (step & 1) << 3 | (step & 2) << 1 | (step & 4) >> 1 | (step & 8) >> 3;  // 0, 8, 4, 12, 2, ...
    lane(sum, i, n, start, element, combine);
    // One loop for all chains spares the compiler more, and takes columns of some rows 3 to 14% longer.
    if (i + kLanes < n) {
      lane(other, i + kLanes, n, start, element, combine);
      add(sum, other, combine);
    }
    if (i + 2 * kLanes < n) {
      lane(other, i + 2 * kLanes, n, start, element, combine);
      if (i + 3 * kLanes < n) {
        lane(third, i + 3 * kLanes, n, start, element, combine);
        add(other, third, combine);
      }
      add(sum, other, combine);
    }
    int level = 0;
    for (int bits = step; bits & 1; bits >>= 1, ++level) {
      _Pragma("GCC unroll 8") for (int v = 0; v < kVectors; ++v) sum[v] = last(held[level][v], sum[v]);
    }
    if (step + 1 < kLanes) {
      _Pragma("GCC unroll 8") for (int v = 0; v < kVectors; ++v) held[level][v] = sum[v];
    }
  }
  _Pragma("GCC unroll 8") for (int v = 0; v < kVectors; ++v) {
    store_some(y + v * kLanes, finish(sum[v]), block.lanes(v));
  }
}

/// The same for a block of one vector and no more rows than lanes, of which each has one element at most. What is empty
/// is neutral, and so is what two such are together.
template <class F, class Combine, class Last, class Finish>
INFERKIT_INLINE void fold_few_rows(int64_t n, Block<1> block, float* y, float neutral, F element, Combine combine,
                                   Last last, Finish finish) {
  const F32x16 start = broadcast(neutral);
  F32x16 lanes[kLanes];
  for (int64_t r = 0; r < n; ++r) lanes[r] = combine(start, element(r, 0));
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    const int64_t pairs = n - half;  // others have nothing beside them, or are empty themselves
    for (int64_t i = 0; i < half && i < n; ++i) lanes[i] = last(lanes[i], i < pairs ? lanes[i + half] : start);
  }
  store_some(y, finish(lanes[0]), block.lanes(0));
}

// Vectors of columns in a block: its sums fit the registers twice.
constexpr int kWide = kNativeLanes / 2;
// Up to so many rows fold_few_rows takes less time than a block's tree, which does not fit the registers of AVX2. (With
// those of AVX-512 nobody has measured it.)
constexpr int64_t kFewRows = kNativeLanes == 8 ? 8 : 0;

/// Folds blocks of `width` columns: of kWide vectors, then of what is left. elements(first column, block) gives
/// a block's element(row, vector).
template <class Elements, class Combine, class Last, class Finish>
INFERKIT_INLINE void fold_blocks(int64_t n, int64_t width, float* y, float neutral, Elements elements, Combine combine,
                                 Last last, Finish finish, bool few_rows) {
  int64_t first = 0;
  if (few_rows) {
    for (; first < width; first += kLanes) {
      const Block<1> block{width - first < kLanes ? width - first : kLanes};
      fold_few_rows(n, block, y + first, neutral, elements(first, block), combine, last, finish);
    }
    return;
  }
  for (; first + kWide * kLanes <= width; first += kWide * kLanes) {
    const Block<kWide> block{kLanes};
    fold_columns(n, block, y + first, neutral, elements(first, block), combine, last, finish);
  }
  for (; first < width; first += kLanes) {
    const Block<1> block{width - first < kLanes ? width - first : kLanes};
    fold_columns(n, block, y + first, neutral, elements(first, block), combine, last, finish);
  }
}

/// The same for any number of columns of `x`, whose rows are `stride` apart, of element(values).
template <class Element, class Combine, class Last, class Finish>
INFERKIT_INLINE void reduce(const float* x, int64_t n, int64_t stride, int64_t width, float* y, float neutral,
                            Element element, Combine combine, Last last, Finish finish, bool few_rows = false) {
  const auto elements = [=](int64_t first, auto block) INFERKIT_LAMBDA {
    return [=](int64_t row, int v) INFERKIT_LAMBDA {
      return element(load_some(x + row * stride + first + v * kLanes, block.lanes(v), neutral));
    };
  };
  fold_blocks(n, width, y, neutral, elements, combine, last, finish, few_rows);
}

struct Same {
  INFERKIT_MEMBER F32x16 operator()(F32x16 v) const { return v; }
};
struct Square {
  INFERKIT_MEMBER F32x16 operator()(F32x16 v) const { return v * v; }
};
struct Magnitude {
  INFERKIT_MEMBER F32x16 operator()(F32x16 v) const { return abs(v); }
};
// As the trees of simd.h compare two lanes.
struct LastMax {
  INFERKIT_MEMBER F32x16 operator()(F32x16 a, F32x16 b) const { return blend(is_nan(a), a, blend(a > b, a, b)); }
};
struct LastMin {
  INFERKIT_MEMBER F32x16 operator()(F32x16 a, F32x16 b) const { return blend(is_nan(a), a, blend(a < b, a, b)); }
};
struct OneNan {
  INFERKIT_MEMBER F32x16 operator()(F32x16 v) const { return blend(is_nan(v), broadcast(__builtin_nanf("")), v); }
};

void sum(const float* x, int64_t n, int64_t stride, int64_t width, float* y) {
  reduce(x, n, stride, width, y, 0, Same{}, Add{}, Add{}, Same{});
}
void mean(const float* x, int64_t n, int64_t stride, int64_t width, float* y) {
  const F32x16 count = broadcast(static_cast<float>(n));
  reduce(x, n, stride, width, y, 0, Same{}, Add{}, Add{}, [=](F32x16 v) INFERKIT_LAMBDA { return v / count; });
}
void sum_squares(const float* x, int64_t n, int64_t stride, int64_t width, float* y) {
  reduce(x, n, stride, width, y, 0, Square{}, Add{}, Add{}, Same{});
}
void sum_abs(const float* x, int64_t n, int64_t stride, int64_t width, float* y) {
  reduce(x, n, stride, width, y, 0, Magnitude{}, Add{}, Add{}, Same{});
}
void product(const float* x, int64_t n, int64_t stride, int64_t width, float* y) {
  reduce(x, n, stride, width, y, 1, Same{}, Multiply{}, Multiply{}, Same{});
}
void largest(const float* x, int64_t n, int64_t stride, int64_t width, float* y) {
  reduce(x, n, stride, width, y, -__builtin_inff(), Same{}, Larger{}, LastMax{}, OneNan{}, n > 1 && n <= kFewRows);
}
void smallest(const float* x, int64_t n, int64_t stride, int64_t width, float* y) {
  reduce(x, n, stride, width, y, __builtin_inff(), Same{}, Smaller{}, LastMin{}, OneNan{}, n > 1 && n <= kFewRows);
}

void exponentials(const float* x, int64_t n, int64_t stride, int64_t width, const float* top, float* e, float* y) {
  const auto elements = [=](int64_t first, auto block) INFERKIT_LAMBDA {
    return [=](int64_t row, int v) INFERKIT_LAMBDA {
      const int64_t column = first + v * kLanes, at = row * stride + column, some = block.lanes(v);
      const F32x16 value = exp(load_some(x + at, some, 0) - load_some(top + column, some, 0));
      if (e) store_some(e + at, value, some);
      return value;
    };
  };
  fold_blocks(n, width, y, 0, elements, Add{}, Add{}, Same{}, n <= kFewRows);
}

}  // namespace columns
}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
