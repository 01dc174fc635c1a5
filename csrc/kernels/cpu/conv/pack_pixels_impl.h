// Implicit im2col; part of conv_impl.h. Sixteen neighbouring pixels fall into a few runs along output rows. For one
// run, a tap reads one strided run of the input, of which some lanes fall inside the image; that is worked out once per
// run and tap and holds for all channels.
#pragma once
#include "kernels/cpu/conv/conv.h"
#include "kernels/cpu/conv/lanes.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

constexpr int kPanel = 16;
constexpr int64_t kMaxSources = 1024;

/// Pixels of one output row.
struct Run {
  int64_t start[3];  // where the first tap of the first pixel falls
  int lanes;         // how many
  int offset;        // of the first one in the panel
};

INFERKIT_INLINE int runs_of(const PackPixelsArgs& a, int64_t pixel, int64_t count, Run (&runs)[kPanel]) {
  const int64_t width = a.dim[2].out, height = a.dim[1].out;
  int n = 0;
  for (int64_t done = 0; done < count;) {
    const int64_t column = (pixel + done) % width, row = (pixel + done) / width;
    const int64_t at[3] = {row / height, row % height, column};
    const int64_t left = width - column, lanes = left < count - done ? left : count - done;
    Run& run = runs[n++];
    for (int d = 0; d < 3; ++d) run.start[d] = at[d] * a.dim[d].stride - a.dim[d].pad_begin;
    run.lanes = static_cast<int>(lanes);
    run.offset = static_cast<int>(done);
    done += lanes;
  }
  return n;
}

/// What a tap reads for a run: lanes [low, high) from x[offset + lane * stride], to the panel's row at `lane`.
struct Source {
  int64_t offset;
  int16_t low, high, lane;
};

INFERKIT_INLINE Source source_of(const PackPixelsArgs& a, const Run& run, int64_t k0, int64_t k1, int64_t k2) {
  const ConvDim &d = a.dim[0], &h = a.dim[1], &w = a.dim[2];
  const int64_t z = run.start[0] + k0 * d.dilation, y = run.start[1] + k1 * h.dilation;
  const int64_t x = run.start[2] + k2 * w.dilation;
  const auto lane = static_cast<int16_t>(run.offset);
  if (z < 0 || z >= d.in || y < 0 || y >= h.in) return {0, 0, 0, lane};
  int64_t low = x < 0 ? (-x + w.stride - 1) / w.stride : 0;
  int64_t high = x < w.in ? (w.in - x + w.stride - 1) / w.stride : 0;
  if (high > run.lanes) high = run.lanes;
  if (low >= high) return {0, 0, 0, lane};
  return {(z * h.in + y) * w.in + x, static_cast<int16_t>(low), static_cast<int16_t>(high), lane};
}

// Within a row of the panel the runs are written one after the other, sixteen lanes each: what one spills past its
// pixels, even into the next row, is written again by the run or the row that comes next.
template <int kStride>
INFERKIT_INLINE void pack_panel(const PackPixelsArgs& a, const Run* runs, int run_count, float* to) {
  const int64_t plane = a.dim[0].in * a.dim[1].in * a.dim[2].in, stride = a.dim[2].stride;
  const int64_t taps = a.dim[0].kernel * a.dim[1].kernel * a.dim[2].kernel;
  const bool one_table = taps * run_count <= kMaxSources;
  Source table[kMaxSources];
  for (int64_t c = 0; c < a.channels; ++c) {
    const float* x = a.x + c * plane;
    if (c == 0 || !one_table) {
      int64_t n = 0;
      for (int64_t i = 0; i < a.dim[0].kernel; ++i) {
        for (int64_t j = 0; j < a.dim[1].kernel; ++j) {
          for (int64_t k = 0; k < a.dim[2].kernel; ++k) {
            for (int r = 0; r < run_count; ++r) {
              const Source s = source_of(a, runs[r], i, j, k);
              if (one_table)
                table[n++] = s;
              else
                store(to + s.lane, load_lanes<kStride>(x + s.offset, stride, s.low, s.high));
            }
            if (!one_table) to += kPanel;
          }
        }
      }
      if (!one_table) continue;
    }
    const Source* s = table;
    for (int64_t t = 0; t < taps; ++t, to += kPanel) {
      for (int r = 0; r < run_count; ++r, ++s)
        store(to + s->lane, load_lanes<kStride>(x + s->offset, stride, s->low, s->high));
    }
  }
}

void pack_pixels(const PackPixelsArgs& a) {
  const int64_t rows = a.channels * a.dim[0].kernel * a.dim[1].kernel * a.dim[2].kernel;
  float* to = a.to;
  for (int64_t pixel = 0; pixel < a.count; pixel += kPanel, to += rows * kPanel) {
    Run runs[kPanel];
    const int64_t left = a.count - pixel;
    const int n = runs_of(a, a.first + pixel, left < kPanel ? left : kPanel, runs);
    if (a.dim[2].stride == 1)
      pack_panel<1>(a, runs, n, to);
    else if (a.dim[2].stride == 2)
      pack_panel<2>(a, runs, n, to);
    else
      pack_panel<0>(a, runs, n, to);
  }
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
