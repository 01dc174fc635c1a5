// Depthwise convolution of any geometry; part of conv_impl.h. The rows that a call needs are copied into scratch with
// their padding, their columns split by stride, so that every tap is a plain load at a fixed offset.
#pragma once
#include "kernels/cpu/conv/conv.h"
#include "kernels/cpu/conv/depthwise_direct_impl.h"
#include "kernels/cpu/conv/depthwise_seven_impl.h"
#include "kernels/cpu/conv/lanes.h"
#include "kernels/cpu/conv/split_impl.h"
#include "kernels/summation.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

/// acc = the sum of taps [first, end). Tap t of output (r, j) is base[offset[t] + r * row_step + j].
template <int kRows, int kVectors>
INFERKIT_INLINE void sum_taps(F32x16 (&acc)[kRows][kVectors], const float* base, const int64_t* offset,
                              const float* weights, int64_t first, int64_t end, int64_t row_step) {
  _Pragma("GCC unroll 4") for (int r = 0; r < kRows; ++r) {
    _Pragma("GCC unroll 4") for (int v = 0; v < kVectors; ++v) acc[r][v] = broadcast(0);
  }
  for (int64_t t = first; t < end; ++t) {
    const F32x16 weight = broadcast(weights[t]);
    const float* p = base + offset[t];
    _Pragma("GCC unroll 4") for (int r = 0; r < kRows; ++r) {
      _Pragma("GCC unroll 4") for (int v = 0; v < kVectors; ++v) {
        acc[r][v] = fma(weight, load(p + r * row_step + v * kLanes), acc[r][v]);
      }
    }
  }
}

/// kRows x kVectors x 16 outputs at once, in chunks of taps (kernels/summation.h).
template <int kRows, int kVectors>
INFERKIT_INLINE void depthwise_tile(const float* base, const int64_t* offset, const float* weights, int64_t taps,
                                    int64_t row_step, float bias, float* y, int64_t width, int64_t y_step) {
  F32x16 acc[kRows][kVectors];
  const int64_t chunk = sum_chunk(taps);
  sum_taps(acc, base, offset, weights, 0, taps < chunk ? taps : chunk, row_step);
  for (int64_t first = chunk; first < taps; first += chunk) {
    F32x16 part[kRows][kVectors];
    sum_taps(part, base, offset, weights, first, taps < first + chunk ? taps : first + chunk, row_step);
    _Pragma("GCC unroll 4") for (int r = 0; r < kRows; ++r) {
      _Pragma("GCC unroll 4") for (int v = 0; v < kVectors; ++v) acc[r][v] = acc[r][v] + part[r][v];
    }
  }
  _Pragma("GCC unroll 4") for (int r = 0; r < kRows; ++r) {
    _Pragma("GCC unroll 4") for (int v = 0; v < kVectors; ++v) {
      const int64_t left = width - v * kLanes;
      const F32x16 sum = acc[r][v] + broadcast(bias);  // last: see add_bias of the GEMM
      if (left >= kLanes)
        store(y + r * y_step + v * kLanes, sum);
      else if (left > 0)
        store_partial(y + r * y_step + v * kLanes, sum, left);
    }
  }
}

/// Some rows across the plane, from `base`; `offset` and `row_step` are those of depthwise_tile.
template <int kRows>
INFERKIT_INLINE void depthwise_rows(const DepthwiseArgs& a, const float* base, const int64_t* offset, int64_t taps,
                                    int64_t row_step, float* y) {
  const int64_t out = a.w.out;
  int64_t j = 0;
  for (; out - j > kLanes; j += 2 * kLanes) {
    depthwise_tile<kRows, 2>(base + j, offset, a.weights, taps, row_step, a.bias, y + j, out - j, out);
  }
  if (j < out) depthwise_tile<kRows, 1>(base + j, offset, a.weights, taps, row_step, a.bias, y + j, out - j, out);
}

void depthwise(const DepthwiseArgs& a) {
  if (depthwise_direct(a) || depthwise_seven(a)) return;
  const int64_t width = depthwise_row(a.w), row_step = width * a.w.stride;
  const int64_t top = a.first * a.h.stride - a.h.pad_begin;
  const int64_t in_rows = (a.rows - 1) * a.h.stride + (a.h.kernel - 1) * a.h.dilation + 1;
  for (int64_t r = 0; r < in_rows; ++r) {
    const int64_t row = top + r;
    const float* from = row >= 0 && row < a.h.in ? a.x + row * a.w.in : nullptr;
    copy_phases(a.w, from, a.w.stride, width, width, a.scratch + r * row_step);
  }
  int64_t offset[kMaxDepthwiseTaps];
  int64_t taps = 0;
  for (int64_t i = 0; i < a.h.kernel; ++i) {
    int64_t at = i * a.h.dilation * row_step, phase = 0;
    for (int64_t j = 0; j < a.w.kernel; ++j) {
      offset[taps++] = at + phase * width;
      phase += a.w.dilation;
      at += phase / a.w.stride;
      phase %= a.w.stride;
    }
  }
  const int64_t step = a.h.stride * row_step, out = a.w.out;
  for (int64_t r = 0; r < a.rows; r += 4) {
    const float* base = a.scratch + r * step;
    float* y = a.y + (a.first + r) * out;
    const int64_t rows = a.rows - r;
    if (rows >= 4)
      depthwise_rows<4>(a, base, offset, taps, step, y);
    else if (rows == 3)
      depthwise_rows<3>(a, base, offset, taps, step, y);
    else if (rows == 2)
      depthwise_rows<2>(a, base, offset, taps, step, y);
    else
      depthwise_rows<1>(a, base, offset, taps, step, y);
  }
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
