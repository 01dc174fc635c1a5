// Depthwise convolution of sixteen channels at once, a lane each; part of conv_impl.h. For images so small that the
// pixels of a row fill few lanes, and windows that reach beyond them: taps in the padding are left out, and as zeros
// would change nothing the bits are those of the other kernels.
#pragma once
#include "kernels/cpu/conv/blocks_copy_impl.h"
#include "kernels/cpu/conv/conv.h"
#include "kernels/cpu/simd.h"
#include "kernels/summation.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

/// Neighbouring outputs of a row, from `column` on.
template <int kOutputs>
INFERKIT_INLINE void depthwise_outputs(const DepthwiseChannelsArgs& a, const float* x, int64_t row, int64_t column,
                                       F32x16 bias, float* y) {
  const int64_t taps = a.h.kernel * a.w.kernel, chunk = sum_chunk(taps), stride = a.w.stride;
  const int64_t top = row * a.h.stride - a.h.pad_begin, left = column * stride - a.w.pad_begin;
  F32x16 total[kOutputs], part[kOutputs];
  for (int r = 0; r < kOutputs; ++r) total[r] = part[r] = broadcast(0);
  int64_t end = chunk;  // of this chunk
  for (int64_t i = 0; i < a.h.kernel; ++i) {
    const int64_t in_row = top + i * a.h.dilation;
    const bool inside = in_row >= 0 && in_row < a.h.in;
    const float* from = x + in_row * a.w.in * kLanes;
    for (int64_t j = 0; j < a.w.kernel;) {  // the taps of a row that are in one chunk
      const int64_t tap = i * a.w.kernel + j, more = end - tap, rest = a.w.kernel - j;
      const int64_t count = rest < more ? rest : more;
      if (inside) {
        // Of output r the taps are columns [left + r stride + j, ... + count), as far as they are in the image.
        const float* weights = a.weights + tap * kLanes;
        const int64_t first = left + j;
        const auto low = [&](int r) INFERKIT_LAMBDA {
          const int64_t c = first + r * stride;
          return c > 0 ? c : 0;
        };
        const auto high = [&](int r) INFERKIT_LAMBDA {
          const int64_t c = first + r * stride + count;
          return c < a.w.in ? c : a.w.in;
        };
        const auto add = [&](int r, int64_t begin, int64_t stop) INFERKIT_LAMBDA {
          const float* w = weights - (first + r * stride) * kLanes;
          for (int64_t c = begin; c < stop; ++c) part[r] = fma(load(w + c * kLanes), load(from + c * kLanes), part[r]);
        };
        if (first >= 0 && first + (kOutputs - 1) * stride + count <= a.w.in) {  // all of them inside: tap by tap
          const float* at = from + first * kLanes;
          for (int64_t t = 0; t < count; ++t) {
            const F32x16 w = load(weights + t * kLanes);
            _Pragma("GCC unroll 4") for (int r = 0; r < kOutputs; ++r) {
              part[r] = fma(w, load(at + (t + r * stride) * kLanes), part[r]);
            }
          }
        } else {
          // Columns that all of them read, and those before and behind.
          const int64_t begin = low(kOutputs - 1), stop = high(0);
          _Pragma("GCC unroll 4") for (int r = 0; r < kOutputs; ++r) {
            const int64_t mine = high(r);
            add(r, low(r), begin < mine ? begin : mine);
          }
          const float* w = weights - first * kLanes;
          for (int64_t c = begin; c < stop; ++c) {
            const F32x16 v = load(from + c * kLanes);
            _Pragma("GCC unroll 4") for (int r = 0; r < kOutputs; ++r) {
              part[r] = fma(load(w + (c - r * stride) * kLanes), v, part[r]);
            }
          }
          _Pragma("GCC unroll 4") for (int r = 0; r < kOutputs; ++r) {
            const int64_t done = begin > stop ? begin : stop, mine = low(r);
            add(r, done > mine ? done : mine, high(r));
          }
        }
      }
      j += count;
      if (tap + count == end || tap + count == taps) {
        _Pragma("GCC unroll 4") for (int r = 0; r < kOutputs; ++r) {
          total[r] = end == chunk ? part[r] : total[r] + part[r];
          part[r] = broadcast(0);
        }
        end += chunk;
      }
    }
  }
  _Pragma("GCC unroll 4") for (int r = 0; r < kOutputs; ++r) store(y + r * kLanes, within(total[r] + bias, a.bounds));
}

#if defined(__AVX512F__)
constexpr int kSideBySide = 7;  // images are often 7, 14, 28 and 56 pixels wide
#else
constexpr int kSideBySide = 4;
#endif

/// Neighbouring outputs of a row whose windows have kTaps columns and fit one chunk: each column of the image is read
/// once a row, for all outputs that it belongs to. kInside: all of them are in the image.
template <int kTaps, int kStride, int kOutputs, bool kInside>
void depthwise_side_by_side(const DepthwiseChannelsArgs& a, const float* x, int64_t row, int64_t column, F32x16 bias,
                            float* y) {
  const int64_t top = row * a.h.stride - a.h.pad_begin, left = column * kStride - a.w.pad_begin;
  F32x16 acc[kOutputs];
  _Pragma("GCC unroll 7") for (int r = 0; r < kOutputs; ++r) acc[r] = broadcast(0);
  for (int64_t i = 0; i < a.h.kernel; ++i) {
    const int64_t in_row = top + i * a.h.dilation;
    if (in_row < 0 || in_row >= a.h.in) continue;
    const float* from = x + (in_row * a.w.in + left) * kLanes;
    const float* weights = a.weights + i * kTaps * kLanes;
    F32x16 w[kTaps];
    if (kSideBySide > 4) {  // there are registers for them, and fewer loads than sums
      _Pragma("GCC unroll 5") for (int j = 0; j < kTaps; ++j) w[j] = load(weights + j * kLanes);
    }
    _Pragma("GCC unroll 17") for (int c = 0; c < (kOutputs - 1) * kStride + kTaps; ++c) {
      if (!kInside && (left + c < 0 || left + c >= a.w.in)) continue;
      const F32x16 v = load(from + c * kLanes);
      _Pragma("GCC unroll 7") for (int r = 0; r < kOutputs; ++r) {
        const int j = c - r * kStride;
        if (j >= 0 && j < kTaps) acc[r] = fma(kSideBySide > 4 ? w[j] : load(weights + j * kLanes), v, acc[r]);
      }
    }
  }
  _Pragma("GCC unroll 7") for (int r = 0; r < kOutputs; ++r) store(y + r * kLanes, within(acc[r] + bias, a.bounds));
}

template <int kTaps, int kStride>
void depthwise_row_of(const DepthwiseChannelsArgs& a, const float* x, int64_t row, F32x16 bias, float* y) {
  int64_t c = 0;
  for (; c + kSideBySide <= a.w.out; c += kSideBySide) {
    const int64_t left = c * kStride - a.w.pad_begin, right = left + (kSideBySide - 1) * kStride + kTaps;
    const auto some = left >= 0 && right <= a.w.in ? depthwise_side_by_side<kTaps, kStride, kSideBySide, true>
                                                   : depthwise_side_by_side<kTaps, kStride, kSideBySide, false>;
    some(a, x, row, c, bias, y + c * kLanes);
  }
  for (; c + 2 <= a.w.out; c += 2) depthwise_side_by_side<kTaps, kStride, 2, false>(a, x, row, c, bias, y + c * kLanes);
  if (c < a.w.out) depthwise_side_by_side<kTaps, kStride, 1, false>(a, x, row, c, bias, y + c * kLanes);
}

/// A row of outputs, where its windows are of a width that is unrolled.
using DepthwiseRow = void (*)(const DepthwiseChannelsArgs& a, const float* x, int64_t row, F32x16 bias, float* y);
INFERKIT_INLINE DepthwiseRow depthwise_row_fn(const DepthwiseChannelsArgs& a) {
  const int64_t taps = a.h.kernel * a.w.kernel;
  if (sum_chunk(taps) < taps || a.w.stride > 2) return nullptr;
  if (a.w.kernel == 3) return a.w.stride == 1 ? depthwise_row_of<3, 1> : depthwise_row_of<3, 2>;
  if (a.w.kernel == 5) return a.w.stride == 1 ? depthwise_row_of<5, 1> : depthwise_row_of<5, 2>;
  return nullptr;
}

void depthwise_channels(const DepthwiseChannelsArgs& a) {
  const int64_t in = a.h.in * a.w.in, out = a.h.out * a.w.out;
  const float* x = a.x;
  if (!a.x_pixels) {
    planes_to_pixels(a.x, in, in, a.channels, a.scratch);
    x = a.scratch;
  }
  float* const y = a.y_pixels ? a.y : a.scratch + (a.x_pixels ? 0 : in * kLanes);
  const F32x16 bias = a.bias ? load(a.bias) : broadcast(0);
  const DepthwiseRow side_by_side = depthwise_row_fn(a);
  for (int64_t row = 0; row < a.h.out; ++row) {
    float* to = y + row * a.w.out * kLanes;
    if (side_by_side) {
      side_by_side(a, x, row, bias, to);
      continue;
    }
    int64_t column = 0;
    for (; column + 4 <= a.w.out; column += 4) depthwise_outputs<4>(a, x, row, column, bias, to + column * kLanes);
    for (; column + 2 <= a.w.out; column += 2) depthwise_outputs<2>(a, x, row, column, bias, to + column * kLanes);
    if (column < a.w.out) depthwise_outputs<1>(a, x, row, column, bias, to + column * kLanes);
  }
  if (!a.y_pixels) pixels_to_planes(y, out, a.channels, a.y, out);
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
