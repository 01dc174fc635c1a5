// Depthwise convolution; part of conv_impl.h. The rows that a call needs are copied into scratch with their padding,
// their columns split by stride, so that every tap is a plain load at a fixed offset.
#pragma once
#include "kernels/cpu/conv/conv.h"
#include "kernels/cpu/conv/lanes.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

/// Columns phase, phase + stride... of one padded input row; zeros where it is outside the image.
INFERKIT_INLINE void copy_phase(const ConvDim& w, const float* row, int64_t phase, int64_t width, float* to) {
  const int64_t start = phase - w.pad_begin;
  int64_t low = start < 0 ? (-start + w.stride - 1) / w.stride : 0;
  int64_t high = row && start < w.in ? (w.in - start + w.stride - 1) / w.stride : 0;
  if (high > width) high = width;
  if (low > high) low = high;
  for (int64_t j = 0; j < low; ++j) to[j] = 0;
  const float* from = row ? row + start : nullptr;
  int64_t j = low;
  if (w.stride == 1) {
    for (; j + kLanes <= high; j += kLanes) store(to + j, load(from + j));
  } else if (w.stride == 2) {
    // The second load ends one element past the last lane; leave the last lanes to the plain loop.
    for (; j + kLanes < high; j += kLanes) store(to + j, evens(load(from + 2 * j), load(from + 2 * j + kLanes)));
  }
  for (; j < high; ++j) to[j] = from[j * w.stride];
  for (; j < width; ++j) to[j] = 0;
}

/// kRows x kVectors x 16 outputs at once. Tap t of output (r, j) is base[offset[t] + r * row_step + j].
template <int kRows, int kVectors>
INFERKIT_INLINE void depthwise_tile(const float* base, const int64_t* offset, const float* weights, int64_t taps,
                                    int64_t row_step, float bias, float* y, int64_t width, int64_t y_step) {
  F32x16 acc[kRows][kVectors];
  _Pragma("GCC unroll 4") for (int r = 0; r < kRows; ++r) {
    _Pragma("GCC unroll 4") for (int v = 0; v < kVectors; ++v) acc[r][v] = broadcast(bias);
  }
  for (int64_t t = 0; t < taps; ++t) {
    const F32x16 weight = broadcast(weights[t]);
    const float* p = base + offset[t];
    _Pragma("GCC unroll 4") for (int r = 0; r < kRows; ++r) {
      _Pragma("GCC unroll 4") for (int v = 0; v < kVectors; ++v) {
        acc[r][v] = fma(weight, load(p + r * row_step + v * kLanes), acc[r][v]);
      }
    }
  }
  _Pragma("GCC unroll 4") for (int r = 0; r < kRows; ++r) {
    _Pragma("GCC unroll 4") for (int v = 0; v < kVectors; ++v) {
      const int64_t left = width - v * kLanes;
      if (left >= kLanes)
        store(y + r * y_step + v * kLanes, acc[r][v]);
      else if (left > 0)
        store_partial(y + r * y_step + v * kLanes, acc[r][v], left);
    }
  }
}

void depthwise(const DepthwiseArgs& a) {
  const int64_t width = depthwise_row(a.w), row_step = width * a.w.stride;
  const int64_t top = a.first * a.h.stride - a.h.pad_begin;
  const int64_t in_rows = (a.rows - 1) * a.h.stride + (a.h.kernel - 1) * a.h.dilation + 1;
  for (int64_t r = 0; r < in_rows; ++r) {
    const int64_t row = top + r;
    const float* from = row >= 0 && row < a.h.in ? a.x + row * a.w.in : nullptr;
    for (int64_t phase = 0; phase < a.w.stride; ++phase)
      copy_phase(a.w, from, phase, width, a.scratch + r * row_step + phase * width);
  }
  int64_t offset[kMaxDepthwiseTaps];
  const int64_t taps = a.h.kernel * a.w.kernel;
  for (int64_t t = 0; t < taps; ++t) {
    const int64_t column = t % a.w.kernel * a.w.dilation;
    offset[t] = t / a.w.kernel * a.h.dilation * row_step + column % a.w.stride * width + column / a.w.stride;
  }
  const int64_t step = a.h.stride * row_step, out = a.w.out;
  for (int64_t r = 0; r < a.rows;) {
    const float* base = a.scratch + r * step;
    float* y = a.y + (a.first + r) * out;
    const int64_t rows = a.rows - r >= 4 ? 4 : 1;
    for (int64_t j = 0; j < out;) {
      const int64_t left = out - j;
#define INFERKIT_DEPTHWISE(r, v) depthwise_tile<r, v>(base + j, offset, a.weights, taps, step, a.bias, y + j, left, out)
      if (rows == 4 && left > kLanes) {
        INFERKIT_DEPTHWISE(4, 2);
        j += 2 * kLanes;
      } else if (rows == 4) {
        INFERKIT_DEPTHWISE(4, 1);
        j += kLanes;
      } else {
        INFERKIT_DEPTHWISE(1, 4);
        j += 4 * kLanes;
      }
#undef INFERKIT_DEPTHWISE
    }
    r += rows;
  }
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
