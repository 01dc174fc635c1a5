// Convolutions of one channel a group with the windows that nets for phones are made of: known sizes, so that a thread
// reads all that it needs at once, and uses what it read for several pixels of a column.
#include "kernels/cuda/conv_taps.h"

namespace inferkit::kernels::cuda {
namespace {

/// In 32 bits where they do.
INFERKIT_DEVICE int64_t quotient(int64_t a, int32_t b) {
  return a < int64_t{1} << 31 ? static_cast<int32_t>(a) / b : a / b;
}

template <int kKernel, int kStride>
INFERKIT_DEVICE void make_columns(const ConvParams& p) {
  constexpr int kRows = (kColumnPixels - 1) * kStride + kKernel;
  const WindowAxis &h = p.axes[1], &w = p.axes[2];
  const int32_t filters = p.groups * p.filters, per_plane = (h.out + kColumnPixels - 1) / kColumnPixels * w.out;
  const int64_t n = p.batch * filters * per_plane;
  for (int64_t i = first_element(); i < n; i += element_step()) {
    const int64_t plane = quotient(i, per_plane);
    const auto within_plane = static_cast<int32_t>(i - plane * per_plane);
    const auto filter = static_cast<int32_t>(plane - quotient(plane, filters) * filters);
    const int32_t line = within_plane / w.out * kColumnPixels, column = within_plane % w.out;
    const int32_t row0 = line * kStride - h.pad, column0 = column * kStride - w.pad;
    const float* const x = p.x + quotient(plane, p.filters) * (int64_t{h.in} * w.in);
    const float* const taps = p.w + int64_t{filter} * (kKernel * kKernel);
    float weights[kKernel][kKernel], sums[kColumnPixels] = {};
#pragma unroll
    for (int a = 0; a < kKernel; ++a) {
#pragma unroll
      for (int b = 0; b < kKernel; ++b) weights[a][b] = taps[a * kKernel + b];
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float values[kKernel];
#pragma unroll
      for (int b = 0; b < kKernel; ++b) {
        const bool there = within(row0 + r, h.in) && within(column0 + b, w.in);
        values[b] = there ? x[(row0 + r) * w.in + column0 + b] : 0.0f;
      }
#pragma unroll
      for (int o = 0; o < kColumnPixels; ++o) {
        const int a = r - o * kStride;
        if (a < 0 || a >= kKernel) continue;
#pragma unroll
        for (int b = 0; b < kKernel; ++b) sums[o] = __fmaf_rn(weights[a][b], values[b], sums[o]);
      }
    }
    float* const y = p.y + plane * (int64_t{h.out} * w.out) + column;
#pragma unroll
    for (int o = 0; o < kColumnPixels; ++o) {
      if (line + o < h.out) y[(line + o) * w.out] = finished(p, sums[o], filter);
    }
  }
}

}  // namespace

INFERKIT_KERNEL(conv_depthwise, ConvParams, 128, 4) {
  const bool is_dense = p.axes[1].stride == 1;
  if (p.axes[1].kernel == 3) {
    is_dense ? make_columns<3, 1>(p) : make_columns<3, 2>(p);
  } else {
    is_dense ? make_columns<5, 1>(p) : make_columns<5, 2>(p);
  }
}

}  // namespace inferkit::kernels::cuda
