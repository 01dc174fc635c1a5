// Depthwise convolution by 7 x 7 at stride 1, straight from the image as by 3 x 3 (depthwise_direct_impl.h); part of
// conv_impl.h. Its 49 taps are two chunks of a sum, so that each output has two sums until the end. Rows of padding are
// left out: their zeros would change nothing.
#pragma once
#include "kernels/cpu/conv/depthwise_direct_impl.h"
#include "kernels/summation.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

struct SevenLanes {
  Lanes of[7];
};
INFERKIT_INLINE SevenLanes seven_lanes(const ConvDim& w, int64_t column) {
  SevenLanes lanes;
  for (int j = 0; j < 7; ++j) {
    const int64_t start = column + j - w.pad_begin;
    lanes.of[j] = lanes_between(-start, w.in - start);
  }
  return lanes;
}

template <int kRows>
void seven_tile(const DepthwiseArgs& a, const SevenLanes& lanes, int64_t row, int64_t column) {
  constexpr int kTaps = 7, kFirst = sum_chunk(kTaps * kTaps);  // taps of the first chunk
  static_assert(2 * kFirst >= kTaps * kTaps);
  F32x16 acc[kRows], second[kRows];
  _Pragma("GCC unroll 7") for (int r = 0; r < kRows; ++r) acc[r] = second[r] = broadcast(0);
  const int64_t top = row - a.h.pad_begin;
  const float* x = a.x + top * a.w.in + column - a.w.pad_begin;
  _Pragma("GCC unroll 13") for (int q = 0; q < kRows - 1 + kTaps; ++q) {
    if (top + q >= 0 && top + q < a.h.in) {
      _Pragma("GCC unroll 7") for (int j = 0; j < kTaps; ++j) {
        const F32x16 v = load_lanes<1>(x + q * a.w.in + j, 1, lanes.of[j]);
        _Pragma("GCC unroll 7") for (int r = 0; r < kRows; ++r) {
          const int i = q - r, tap = i * kTaps + j;
          if (i < 0 || i >= kTaps) continue;
          F32x16& sum = tap < kFirst ? acc[r] : second[r];
          sum = fma(broadcast(a.weights[tap]), v, sum);
        }
      }
    }
  }
  const int64_t width = a.w.out - column;
  float* y = a.y + row * a.w.out + column;
  _Pragma("GCC unroll 7") for (int r = 0; r < kRows; ++r, y += a.w.out) {
    const F32x16 sum = (acc[r] + second[r]) + broadcast(a.bias);
    if (width >= kLanes)
      store(y, sum);
    else
      store_partial(y, sum, width);
  }
}

/// Some rows across the plane.
template <int kRows>
int64_t seven_rows(const DepthwiseArgs& a, int64_t row) {
  SevenLanes lanes = seven_lanes(a.w, 0);
  for (int64_t column = 0; column < a.w.out; column += kLanes) {
    const bool inside = column - a.w.pad_begin + kLanes + 7 <= a.w.in;  // all lanes of all taps, as those before it
    if (column == kLanes || (column > 0 && !inside)) lanes = seven_lanes(a.w, column);
    seven_tile<kRows>(a, lanes, row, column);
  }
  return kRows;
}

/// Does it here, where the geometry is this kernel's.
INFERKIT_INLINE bool depthwise_seven(const DepthwiseArgs& a) {
  if constexpr (kDirectRows > 0) {
    if (a.h.kernel != 7 || a.w.kernel != 7 || a.h.stride != 1 || a.w.stride != 1) return false;
    // Padding reaches no further than the first tile, whose lanes are its own.
    if (a.h.dilation != 1 || a.w.dilation != 1 || a.w.pad_begin >= 7) return false;
    for (int64_t row = a.first, left = a.rows; left > 0;) {
      const int64_t rows = left >= 7   ? seven_rows<7>(a, row)
                           : left >= 4 ? seven_rows<4>(a, row)
                           : left >= 2 ? seven_rows<2>(a, row)
                                       : seven_rows<1>(a, row);
      row += rows;
      left -= rows;
    }
    return true;
  }
  return false;
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
