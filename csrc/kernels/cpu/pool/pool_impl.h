// Pooling of one tier; included by <tier>.cc.
#pragma once
#include "kernels/cpu/pool/pool.h"
#include "kernels/cpu/simd.h"
#include "kernels/summation.h"

namespace inferkit::kernels::INFERKIT_TIER {

extern const PoolKernels kPool;

namespace {

struct Max {
  static constexpr bool kAverage = false, kLong = false;
  INFERKIT_INLINE F32x16 combine(F32x16 a, F32x16 b) { return blend(is_nan(a), a, max(a, b)); }
  /// Of zeros of both signs the greatest is +0, whatever the order in which they are seen; a subnormal is zero.
  INFERKIT_INLINE F32x16 finish(F32x16 v, F32x16) { return v + broadcast(0); }
};
struct ShortSum {
  static constexpr bool kAverage = true, kLong = false;  // one chunk each way
  INFERKIT_INLINE F32x16 combine(F32x16 a, F32x16 b) { return a + b; }
  INFERKIT_INLINE F32x16 finish(F32x16 v, F32x16 count) { return v / count; }
};
struct LongSum : ShortSum {
  static constexpr bool kLong = true;
};

/// at(0), at(1)... at(taps - 1) combined, long sums in chunks; taps > 0.
template <class Op, class At>
INFERKIT_INLINE F32x16 combine_taps(int64_t taps, int64_t chunk, At at) {
  F32x16 v = at(0);
  int64_t end = Op::kLong && chunk < taps ? chunk : taps;
  for (int64_t k = 1; k < end; ++k) v = Op::combine(v, at(k));
  while (Op::kLong && end < taps) {
    F32x16 part = at(end);
    int64_t k = end + 1;
    end = taps - end < chunk ? taps : end + chunk;
    for (; k < end; ++k) part = Op::combine(part, at(k));
    v = Op::combine(v, part);
  }
  return v;
}

/// Lanes p[0], p[stride], p[2 stride]...; kStride 0 stands for any.
template <int kStride>
INFERKIT_INLINE F32x16 load_strided(const float* p, int64_t stride) {
  if constexpr (kStride == 1) {
    return load(p);
  } else if constexpr (kStride == 2) {
    return evens(load(p), load(p + kLanes));
  } else {
    float lanes[kLanes];
    for (int i = 0; i < kLanes; ++i) lanes[i] = p[i * stride];
    return load(lanes);
  }
}

/// The taps of `o` that fall before `end` and, with `from_start`, at or after 0.
struct TapRange {
  int64_t start, first, last;
};
INFERKIT_INLINE TapRange taps_of(const PoolDim& d, int64_t o, int64_t end, bool from_start) {
  const int64_t start = o * d.stride - d.pad_begin;
  int64_t first = from_start && start < 0 ? (-start + d.dilation - 1) / d.dilation : 0;
  int64_t last = end > start ? (end - start + d.dilation - 1) / d.dilation : 0;
  if (last > d.kernel) last = d.kernel;
  if (first > last) first = last;
  return {start, first, last};
}

/// What an average divides by along one dimension; 1 instead of 0.
INFERKIT_INLINE float divisor(const PoolDim& d, int64_t o, bool include_pad) {
  const TapRange t = include_pad ? taps_of(d, o, d.in + d.pad_end, false) : taps_of(d, o, d.in, true);
  return t.last > t.first ? static_cast<float>(t.last - t.first) : 1.0f;
}

/// The same down the columns of all slices.
INFERKIT_INLINE float divisor_down(const PoolArgs& a, int64_t o) {
  const float rows = divisor(a.h, o, a.include_pad);
  return a.slices == a.counted ? rows : rows / static_cast<float>(a.slices) * static_cast<float>(a.counted);
}

/// row[j] = the taps' elements of column j, combined.
template <class Op>
INFERKIT_INLINE void combine_rows(const PoolArgs& a, const TapRange& t, const float* x, float* row) {
  const int64_t width = a.w.in, step = a.h.dilation * width, taps = t.last - t.first, chunk = sum_chunk(a.h.kernel);
  x += (t.start + t.first * a.h.dilation) * width;
  for (int64_t j = 0; j < width; j += kLanes) {
    const int64_t n = width - j;
    if (n >= kLanes) {
      store(row + j, combine_taps<Op>(taps, chunk, [=](int64_t k) INFERKIT_LAMBDA { return load(x + j + k * step); }));
    } else {
      store_partial(
          row + j,
          combine_taps<Op>(taps, chunk, [=](int64_t k) INFERKIT_LAMBDA { return load_partial(x + j + k * step, n); }),
          n);
    }
  }
}

template <class Op, int kStride>
INFERKIT_INLINE void pool_planes(const PoolArgs& a, int64_t planes) {
  alignas(64) float row[kPoolRow];
  alignas(64) float across[kPoolRow];
  const float fill = Op::kAverage ? 0.0f : -__builtin_inff();
  const int64_t used = pool_row_elements(a.w), chunk = sum_chunk(a.w.kernel);
  const int64_t stride = a.w.stride, dilation = a.w.dilation;
  for (int64_t j = 0; j < used; ++j) row[j] = fill;
  if (Op::kAverage) {
    for (int64_t o = 0; o < (a.w.out + 15) / 16 * 16; ++o)
      across[o] = o < a.w.out ? divisor(a.w, o, a.include_pad) : 1.0f;
  }
  const float* x = a.x;
  float* y = a.y;
  for (int64_t plane = 0; plane < planes; ++plane, x += a.h.in * a.w.in) {
    for (int64_t oh = 0; oh < a.h.out; ++oh, y += a.w.out) {
      const TapRange t = taps_of(a.h, oh, a.h.in, true);
      if (t.last > t.first)
        combine_rows<Op>(a, t, x, row + a.w.pad_begin);
      else
        for (int64_t j = 0; j < a.w.in; ++j) row[a.w.pad_begin + j] = fill;
      const F32x16 down = broadcast(Op::kAverage ? divisor_down(a, oh) : 1.0f);
      for (int64_t o = 0; o < a.w.out; o += kLanes) {
        const float* p = row + o * stride;
        F32x16 v = combine_taps<Op>(a.w.kernel, chunk, [=](int64_t k) INFERKIT_LAMBDA {
          return load_strided<kStride>(p + k * dilation, stride);
        });
        v = Op::finish(v, Op::kAverage ? down * load(across + o) : down);
        if (a.w.out - o >= kLanes)
          store(y + o, v);
        else
          store_partial(y + o, v, a.w.out - o);
      }
    }
  }
}

/// Windows two wide, side by side, inside the plane: what every halving pool has. The columns stay in registers.
INFERKIT_INLINE bool in_pairs(const PoolArgs& a) {
  return a.w.kernel == 2 && a.w.stride == 2 && a.w.dilation == 1 && a.w.pad_begin == 0 && 2 * a.w.out <= a.w.in;
}

/// The taps' elements of up to sixteen columns, combined.
template <class Op>
INFERKIT_INLINE F32x16 combine_columns(const float* x, int64_t step, int64_t taps, int64_t chunk, int64_t columns) {
  if (columns >= kLanes)
    return combine_taps<Op>(taps, chunk, [=](int64_t k) INFERKIT_LAMBDA { return load(x + k * step); });
  if (columns <= 0) return broadcast(0);
  return combine_taps<Op>(taps, chunk, [=](int64_t k) INFERKIT_LAMBDA { return load_partial(x + k * step, columns); });
}

template <class Op>
INFERKIT_INLINE void pool_pairs(const PoolArgs& a, int64_t planes) {
  const int64_t step = a.h.dilation * a.w.in, chunk = sum_chunk(a.h.kernel);
  const F32x16 fill = broadcast(Op::kAverage ? 0.0f : -__builtin_inff());
  const float* x = a.x;
  float* y = a.y;
  for (int64_t plane = 0; plane < planes; ++plane, x += a.h.in * a.w.in) {
    for (int64_t oh = 0; oh < a.h.out; ++oh, y += a.w.out) {
      const TapRange t = taps_of(a.h, oh, a.h.in, true);
      const int64_t taps = t.last - t.first;
      const float* from = x + (t.start + t.first * a.h.dilation) * a.w.in;
      const F32x16 count = broadcast(Op::kAverage ? divisor_down(a, oh) * 2.0f : 1.0f);
      for (int64_t o = 0; o < a.w.out; o += kLanes) {
        const int64_t left = a.w.out - o;
        F32x16 v = fill;
        if (taps > 0) {
          const F32x16 low = combine_columns<Op>(from + 2 * o, step, taps, chunk, 2 * left);
          const F32x16 high = combine_columns<Op>(from + 2 * o + kLanes, step, taps, chunk, 2 * left - kLanes);
          v = Op::combine(evens(low, high), odds(low, high));
        }
        v = Op::finish(v, count);
        if (left >= kLanes)
          store(y + o, v);
        else
          store_partial(y + o, v, left);
      }
    }
  }
}

template <class Op>
void pool(const PoolArgs& a, int64_t planes) {
  if (in_pairs(a)) return pool_pairs<Op>(a, planes);
  if (a.w.stride == 1)
    pool_planes<Op, 1>(a, planes);
  else if (a.w.stride == 2)
    pool_planes<Op, 2>(a, planes);
  else
    pool_planes<Op, 0>(a, planes);
}

INFERKIT_INLINE bool one_chunk(const PoolArgs& a) {
  return sum_chunk(a.h.kernel) >= a.h.kernel && sum_chunk(a.w.kernel) >= a.w.kernel;
}

void average(const PoolArgs& a, int64_t planes) { one_chunk(a) ? pool<ShortSum>(a, planes) : pool<LongSum>(a, planes); }

/// combine_taps of kTaps, or of any number where that is 0.
template <class Op, int kTaps, class At>
INFERKIT_INLINE F32x16 combine_few(int64_t taps, int64_t chunk, At at) {
  if constexpr (kTaps == 0) return combine_taps<Op>(taps, chunk, at);
  F32x16 v = at(0);
  _Pragma("GCC unroll 3") for (int k = 1; k < kTaps; ++k) v = Op::combine(v, at(k));
  return v;
}

/// One row of the output in sixteen planes: columns of the window from top to bottom, then from left to right, as in
/// planes. `from` is the first of the window's `rows` rows that are there; kTaps of these and as many columns, if not
/// 0.
template <class Op, int kTaps>
INFERKIT_INLINE void row_of_blocks(const PoolArgs& a, const float* from, int64_t rows, float down, float* y) {
  const int64_t step = a.h.dilation * a.w.in * kLanes, reach = (a.w.kernel - 1) * a.w.dilation;
  const int64_t down_chunk = sum_chunk(a.h.kernel), across_chunk = sum_chunk(a.w.kernel);
  const F32x16 fill = broadcast(Op::kAverage ? 0.0f : -__builtin_inff());
  const auto column = [=](int64_t c) INFERKIT_LAMBDA {
    const float* at = from + c * kLanes;
    return combine_few<Op, kTaps>(rows, down_chunk, [=](int64_t i) INFERKIT_LAMBDA { return load(at + i * step); });
  };
  for (int64_t o = 0; o < a.w.out; ++o, y += kLanes) {
    const int64_t start = o * a.w.stride - a.w.pad_begin;
    F32x16 v = fill;
    if (rows > 0 && start >= 0 && start + reach < a.w.in) {
      v = combine_few<Op, kTaps>(a.w.kernel, across_chunk,
                                 [=](int64_t k) INFERKIT_LAMBDA { return column(start + k * a.w.dilation); });
    } else if (rows > 0) {
      v = combine_taps<Op>(a.w.kernel, across_chunk, [=](int64_t k) INFERKIT_LAMBDA {
        const int64_t c = start + k * a.w.dilation;
        return c < 0 || c >= a.w.in ? fill : column(c);
      });
    }
    const float count = Op::kAverage ? down * divisor(a.w, o, a.include_pad) : 1.0f;
    store(y, Op::finish(v, broadcast(count)));
  }
}

/// Windows that share most of their columns have these combined once.
INFERKIT_INLINE bool shares_columns(const PoolArgs& a) {
  return a.w.kernel > 2 * a.w.stride && a.w.in * kLanes <= kPoolRow;
}

template <class Op>
void pool_of_blocks(const PoolArgs& a, int64_t first, int64_t last) {
  alignas(64) float columns[kPoolRow];
  float* y = a.y + first * a.w.out * kLanes;
  for (int64_t row = first; row < last; ++row, y += a.w.out * kLanes) {
    const int64_t block = row / a.h.out, oh = row % a.h.out;
    const TapRange t = taps_of(a.h, oh, a.h.in, true);
    const int64_t rows = t.last - t.first;
    const float* from = a.x + (block * a.h.in + t.start + t.first * a.h.dilation) * a.w.in * kLanes;
    const float down = Op::kAverage ? divisor_down(a, oh) : 1.0f;
    if (rows > 0 && shares_columns(a)) {
      const int64_t step = a.h.dilation * a.w.in * kLanes, chunk = sum_chunk(a.h.kernel);
      for (int64_t j = 0; j < a.w.in * kLanes; j += kLanes) {
        store(columns + j,
              combine_taps<Op>(rows, chunk, [=](int64_t i) INFERKIT_LAMBDA { return load(from + j + i * step); }));
      }
      row_of_blocks<Op, 0>(a, columns, 1, down, y);
    } else if (!Op::kLong && rows == 2 && a.w.kernel == 2) {
      row_of_blocks<Op, 2>(a, from, rows, down, y);
    } else if (!Op::kLong && rows == 3 && a.w.kernel == 3) {
      row_of_blocks<Op, 3>(a, from, rows, down, y);
    } else {
      row_of_blocks<Op, 0>(a, from, rows, down, y);
    }
  }
}

void average_of_blocks(const PoolArgs& a, int64_t first, int64_t last) {
  one_chunk(a) ? pool_of_blocks<ShortSum>(a, first, last) : pool_of_blocks<LongSum>(a, first, last);
}

}  // namespace

const PoolKernels kPool = {compiled_isa, pool<Max>, average, pool_of_blocks<Max>, average_of_blocks};

}  // namespace inferkit::kernels::INFERKIT_TIER
