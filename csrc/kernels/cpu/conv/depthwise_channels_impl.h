// Depthwise convolution of sixteen channels at once, a lane each; part of conv_impl.h. For images so small that the
// pixels of a row fill few lanes, and windows that reach beyond them: taps in the padding are left out, and as zeros
// would change nothing the bits are those of the other kernels.
#pragma once
#include "kernels/cpu/conv/conv.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/transpose_inl.h"
#include "kernels/summation.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

/// planes[c][i] and pixels[i][c], for c < 16 and i < area; channels past `channels` are zeros.
INFERKIT_INLINE void channels_to_lanes(const float* planes, int64_t area, int64_t channels, float* pixels) {
  int64_t c = 0;
  for (; c + 4 <= channels; c += 4) {
    int64_t i = 0;
    for (; i + 4 <= area; i += 4) transpose_4x4(planes + c * area + i, area, pixels + i * kLanes + c, kLanes);
    for (; i < area; ++i) {
      for (int64_t k = c; k < c + 4; ++k) pixels[i * kLanes + k] = planes[k * area + i];
    }
  }
  for (; c < kLanes; ++c) {
    for (int64_t i = 0; i < area; ++i) pixels[i * kLanes + c] = c < channels ? planes[c * area + i] : 0;
  }
}
INFERKIT_INLINE void lanes_to_channels(const float* pixels, int64_t area, int64_t channels, float* planes) {
  int64_t c = 0;
  for (; c + 4 <= channels; c += 4) {
    int64_t i = 0;
    for (; i + 4 <= area; i += 4) transpose_4x4(pixels + i * kLanes + c, kLanes, planes + c * area + i, area);
    for (; i < area; ++i) {
      for (int64_t k = c; k < c + 4; ++k) planes[k * area + i] = pixels[i * kLanes + k];
    }
  }
  for (; c < channels; ++c) {
    for (int64_t i = 0; i < area; ++i) planes[c * area + i] = pixels[i * kLanes + c];
  }
}

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
  _Pragma("GCC unroll 4") for (int r = 0; r < kOutputs; ++r) store(y + r * kLanes, total[r] + bias);
}

void depthwise_channels(const DepthwiseChannelsArgs& a) {
  const int64_t in = a.h.in * a.w.in, out = a.h.out * a.w.out;
  float* const x = a.scratch;
  float* const y = a.scratch + in * kLanes;
  channels_to_lanes(a.x, in, a.channels, x);
  const F32x16 bias = a.bias ? load(a.bias) : broadcast(0);
  for (int64_t row = 0; row < a.h.out; ++row) {
    float* to = y + row * a.w.out * kLanes;
    int64_t column = 0;
    for (; column + 4 <= a.w.out; column += 4) depthwise_outputs<4>(a, x, row, column, bias, to + column * kLanes);
    for (; column + 2 <= a.w.out; column += 2) depthwise_outputs<2>(a, x, row, column, bias, to + column * kLanes);
    if (column < a.w.out) depthwise_outputs<1>(a, x, row, column, bias, to + column * kLanes);
  }
  lanes_to_channels(y, out, a.channels, a.y);
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
