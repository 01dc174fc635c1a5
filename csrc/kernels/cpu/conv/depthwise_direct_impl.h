// Depthwise convolution by 3 x 3 and 5 x 5 at stride 1 and 2, straight from the image; part of conv_impl.h. A tile is
// some rows of sixteen outputs. It loads each input row once for all outputs that the row belongs to; padding is lanes
// that are not loaded. Every output sums the taps in their order, zeros of the padding with them: the bits are those
// of the general kernel.
#pragma once
#include "kernels/cpu/conv/conv.h"
#include "kernels/cpu/conv/lanes.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

// A tile's height: images are often 7, 14, 28, 56 and 112 rows high. Without AVX-512, loads of some lanes cost more
// than they spare, and the registers hold too few sums.
#if defined(__AVX512F__)
constexpr int kDirectRows = 7;
#else
constexpr int kDirectRows = 0;
#endif

/// Of a column of tiles: what of the image the taps of a row read. At stride 2 two loads serve a pair of taps.
template <int kTaps, int kStride>
struct TapLanes {
  Lanes first[kTaps], second[kTaps];
};

INFERKIT_INLINE Lanes lanes_between(int64_t low, int64_t high) {
  return make_lanes<1>(low > 0 ? low : 0, high < kLanes ? high : kLanes);
}

template <int kTaps, int kStride>
INFERKIT_INLINE TapLanes<kTaps, kStride> tap_lanes(const ConvDim& w, int64_t column) {
  TapLanes<kTaps, kStride> lanes;
  for (int j = 0; j < kTaps; j += kStride) {
    const int64_t start = column * kStride + j - w.pad_begin;
    lanes.first[j] = lanes_between(-start, w.in - start);
    lanes.second[j] = lanes_between(-start - kLanes, w.in - start - kLanes);
  }
  return lanes;
}

template <int kTaps, int kStride>
INFERKIT_INLINE void load_taps(F32x16 (&v)[kTaps], const float* x, const TapLanes<kTaps, kStride>& lanes) {
  _Pragma("GCC unroll 5") for (int j = 0; j < kTaps; j += kStride) {
    const F32x16 a = load_lanes<1>(x + j, 1, lanes.first[j]);
    if constexpr (kStride == 1) {
      v[j] = a;
    } else {
      const F32x16 b = load_lanes<1>(x + j + kLanes, 1, lanes.second[j]);
      v[j] = evens(a, b);
      if (j + 1 < kTaps) v[j + 1] = odds(a, b);
    }
  }
}

template <int kTaps, int kDown, int kStride, int kRows>
void direct_tile(const DepthwiseArgs& a, const TapLanes<kTaps, kStride>& lanes, int64_t row, int64_t column) {
  F32x16 acc[kRows];
  _Pragma("GCC unroll 7") for (int r = 0; r < kRows; ++r) acc[r] = broadcast(0);
  const int64_t top = row * kDown - a.h.pad_begin;
  const float* x = a.x + top * a.w.in + column * kStride - a.w.pad_begin;
  _Pragma("GCC unroll 17") for (int q = 0; q < (kRows - 1) * kDown + kTaps; ++q) {
    F32x16 v[kTaps];
    if (top + q >= 0 && top + q < a.h.in) {
      load_taps<kTaps, kStride>(v, x + q * a.w.in, lanes);
    } else {
      _Pragma("GCC unroll 5") for (int j = 0; j < kTaps; ++j) v[j] = broadcast(0);
    }
    _Pragma("GCC unroll 5") for (int j = 0; j < kTaps; ++j) {
      _Pragma("GCC unroll 7") for (int r = 0; r < kRows; ++r) {
        const int i = q - r * kDown;
        if (i >= 0 && i < kTaps) acc[r] = fma(broadcast(a.weights[i * kTaps + j]), v[j], acc[r]);
      }
    }
  }
  const int64_t width = a.w.out - column;
  float* y = a.y + row * a.w.out + column;
  _Pragma("GCC unroll 7") for (int r = 0; r < kRows; ++r, y += a.w.out) {
    const F32x16 sum = acc[r] + broadcast(a.bias);
    if (width >= kLanes)
      store(y, sum);
    else
      store_partial(y, sum, width);
  }
}

/// Some rows across the plane.
template <int kTaps, int kDown, int kStride, int kRows>
INFERKIT_INLINE int64_t direct_rows(const DepthwiseArgs& a, int64_t row) {
  const int64_t reach = (kLanes - 1) * kStride + kTaps;  // of a tile's loads: those within the image need no new lanes
  TapLanes<kTaps, kStride> lanes = tap_lanes<kTaps, kStride>(a.w, 0);
  for (int64_t column = 0; column < a.w.out; column += kLanes) {
    const int64_t start = column * kStride - a.w.pad_begin;
    if (column == kLanes || start + reach + kStride > a.w.in) lanes = tap_lanes<kTaps, kStride>(a.w, column);
    direct_tile<kTaps, kDown, kStride, kRows>(a, lanes, row, column);
  }
  return kRows;
}

template <int kTaps, int kDown, int kStride>
void direct(const DepthwiseArgs& a) {
  for (int64_t row = a.first, left = a.rows; left > 0;) {
    const int64_t rows = left % 7 == 0 || left >= 16 ? direct_rows<kTaps, kDown, kStride, 7>(a, row)
                         : left % 4 == 0 || left > 6 ? direct_rows<kTaps, kDown, kStride, 4>(a, row)
                         : left >= 3                 ? direct_rows<kTaps, kDown, kStride, 3>(a, row)
                         : left == 2                 ? direct_rows<kTaps, kDown, kStride, 2>(a, row)
                                                     : direct_rows<kTaps, kDown, kStride, 1>(a, row);
    row += rows;
    left -= rows;
  }
}

/// Does it here, where the geometry is this kernel's.
template <int kTaps, int kDown, int kStride>
INFERKIT_INLINE bool direct_if(const DepthwiseArgs& a) {
  if (a.w.kernel != kTaps || a.h.stride != kDown || a.w.stride != kStride) return false;
  direct<kTaps, kDown, kStride>(a);
  return true;
}

/// Does it here, where there is a kernel for the geometry.
INFERKIT_INLINE bool depthwise_direct(const DepthwiseArgs& a) {
  if constexpr (kDirectRows > 0) {
    if (a.h.kernel != a.w.kernel || a.h.dilation != 1 || a.w.dilation != 1) return false;
    // Padding reaches no further than the first tile, whose lanes are its own (see direct_rows).
    if (a.w.pad_begin >= a.w.kernel) return false;
    return direct_if<3, 1, 1>(a) || direct_if<3, 2, 1>(a) || direct_if<3, 2, 2>(a) ||  //
           direct_if<5, 1, 1>(a) || direct_if<5, 2, 1>(a) || direct_if<5, 2, 2>(a);
  }
  return false;
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
