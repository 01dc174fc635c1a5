// Copying rows with their padding, columns split by stride; part of conv_impl.h.
#pragma once
#include "kernels/cpu/conv/conv.h"
#include "kernels/cpu/conv/lanes.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

/// Columns phase, phase + stride... of one padded input row; zeros where it is outside the image (`row` null).
template <int kStride>
INFERKIT_INLINE void copy_phase(const ConvDim& w, const float* row, int64_t phase, int64_t width, float* to) {
  const int64_t stride = kStride ? kStride : w.stride, start = phase - w.pad_begin;
  const int64_t low = start < 0 ? (-start + stride - 1) / stride : 0;
  const int64_t high = row && start < w.in ? (w.in - start + stride - 1) / stride : 0;
  for (int64_t j = 0; j < width; j += kLanes) {
    const int64_t from = low > j ? low - j : 0, end = high - j < kLanes ? high - j : kLanes;
    store(to + j, from < end ? load_lanes<kStride>(row + start + j * stride, stride, make_lanes<kStride>(from, end))
                             : broadcast(0));
  }
}

/// The first `phases` phases of a row, `step` apart.
INFERKIT_INLINE void copy_phases(const ConvDim& w, const float* row, int64_t phases, int64_t width, int64_t step,
                                 float* to) {
  for (int64_t phase = 0; phase < phases; ++phase, to += step) {
    if (w.stride == 1)
      copy_phase<1>(w, row, phase, width, to);
    else if (w.stride == 2)
      copy_phase<2>(w, row, phase, width, to);
    else
      copy_phase<0>(w, row, phase, width, to);
  }
}

/// Both phases of stride 2 in one pass, `step` apart.
INFERKIT_INLINE void copy_both_phases(const ConvDim& w, const float* row, int64_t width, int64_t step, float* to) {
  for (int64_t j = 0; j < width; j += kLanes) {
    F32x16 v[2];
    _Pragma("GCC unroll 2") for (int i = 0; i < 2; ++i) {
      const int64_t start = 2 * j + i * kLanes - w.pad_begin, from = start < 0 ? -start : 0;
      const int64_t end = w.in - start < kLanes ? w.in - start : kLanes;
      v[i] = row && from < end ? load_lanes<1>(row + start, 1, make_lanes<1>(from, end)) : broadcast(0);
    }
    store(to + j, evens(v[0], v[1]));
    store(to + step + j, odds(v[0], v[1]));
  }
}

void split_plane(const SplitPlaneArgs& a) {
  for (int64_t u = 0; u < a.h_phases; ++u) {
    float* to = a.to + u * a.w_phases * a.plane;
    for (int64_t q = 0; q < a.rows; ++q, to += a.pitch) {
      const int64_t y = (a.first + q) * a.h.stride + u - a.h.pad_begin;
      const float* row = y >= 0 && y < a.h.in ? a.x + y * a.w.in : nullptr;
      if (a.w.stride == 2 && a.w_phases == 2)
        copy_both_phases(a.w, row, a.width, a.plane, to);
      else
        copy_phases(a.w, row, a.w_phases, a.width, a.plane, to);
    }
  }
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
