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

/// Where a pixel lies in the output.
struct Position {
  int64_t at[3];
};

/// The runs of the next `count` pixels, from `position` on, which moves behind them.
INFERKIT_INLINE int runs_of(const PackPixelsArgs& a, Position& position, int64_t count, Run (&runs)[kPanel]) {
  int64_t (&at)[3] = position.at;
  int n = 0;
  for (int64_t done = 0; done < count; ++n) {
    const int64_t left = a.dim[2].out - at[2], lanes = left < count - done ? left : count - done;
    Run& run = runs[n];
    for (int d = 0; d < 3; ++d) run.start[d] = at[d] * a.dim[d].stride - a.dim[d].pad_begin;
    run.lanes = static_cast<int>(lanes);
    run.offset = static_cast<int>(done);
    done += lanes;
    at[2] += lanes;
    if (at[2] < a.dim[2].out) continue;
    at[2] = 0;
    if (++at[1] < a.dim[1].out) continue;
    at[1] = 0;
    ++at[0];
  }
  return n;
}

/// What a tap reads for a run: some lanes of the panel's row, each from x[offset + lane * stride].
struct Source {
  int64_t offset;
  Lanes lanes;
};

/// The sources of taps [k2, k2_end) of one row of the window, for one run; `row` is where the input row begins, or -1
/// where it is padding. kStride 0 stands for any.
template <int kStride>
INFERKIT_INLINE void fill_row(const ConvDim& w, const Run& run, int64_t row, int64_t k2, int64_t k2_end, int run_count,
                              Source* s) {
  const int64_t stride = kStride ? kStride : w.stride;
  int64_t x = run.start[2] + k2 * w.dilation;
  for (; k2 < k2_end; ++k2, x += w.dilation, s += run_count) {
    const int64_t low = x < 0 ? (-x + stride - 1) / stride : 0;
    int64_t high = x < w.in ? (w.in - x + stride - 1) / stride : 0;
    if (high > run.lanes) high = run.lanes;
    const bool inside = row >= 0 && low < high;
    *s = {inside ? row + x - run.offset * stride : 0,
          inside ? make_lanes<kStride>(run.offset + low, run.offset + high) : make_lanes<kStride>(0, 0)};
  }
}

/// Taps [first_tap, last_tap) of all runs, the runs of a tap side by side. Once for a panel, or for a part of one that
/// has very many taps: not worth a copy for each number of runs.
template <int kStride>
[[gnu::noinline]] void fill_sources(const PackPixelsArgs& a, const Run* runs, int run_count, int64_t first_tap,
                                    int64_t last_tap, Source* to) {
  const ConvDim &d = a.dim[0], &h = a.dim[1], &w = a.dim[2];
  int64_t k2 = first_tap % w.kernel, k1 = first_tap / w.kernel % h.kernel, k0 = first_tap / w.kernel / h.kernel;
  for (int64_t tap = first_tap; tap < last_tap;) {
    const int64_t end = w.kernel - k2 < last_tap - tap ? w.kernel : k2 + last_tap - tap;
    for (int r = 0; r < run_count; ++r) {
      const int64_t z = runs[r].start[0] + k0 * d.dilation, y = runs[r].start[1] + k1 * h.dilation;
      const bool inside = z >= 0 && z < d.in && y >= 0 && y < h.in;
      fill_row<kStride>(w, runs[r], inside ? (z * h.in + y) * w.in : -1, k2, end, run_count, to + r);
    }
    to += (end - k2) * run_count;
    tap += end - k2;
    k2 = 0;
    if (++k1 < h.kernel) continue;
    k1 = 0;
    ++k0;
  }
}

/// Copies `taps` rows of the panel from one channel.
template <int kStride, int kRuns>
INFERKIT_INLINE float* pack_rows(const float* x, int64_t stride, const Source* s, int64_t taps, int run_count,
                                 float* to) {
  const int runs = kRuns ? kRuns : run_count;
  for (int64_t t = 0; t < taps; ++t, to += kPanel) {
    Merged<kStride> row;
    for (int r = 0; r < runs; ++r, ++s) row.add(x + s->offset, stride, s->lanes);
    store(to, row.value());
  }
  return to;
}

template <int kStride, int kRuns>
INFERKIT_INLINE void pack_panel(const PackPixelsArgs& a, const Run* runs, int run_count, float* to) {
  const int64_t plane = a.dim[0].in * a.dim[1].in * a.dim[2].in, stride = a.dim[2].stride;
  const int64_t taps = a.dim[0].kernel * a.dim[1].kernel * a.dim[2].kernel;
  Source table[kMaxSources];
  const int64_t step = taps * run_count <= kMaxSources ? taps : kMaxSources / run_count;
  if (step == taps) fill_sources<kStride>(a, runs, run_count, 0, taps, table);
  for (int64_t c = 0; c < a.channels; ++c) {
    for (int64_t first = 0; first < taps; first += step) {
      const int64_t count = step < taps - first ? step : taps - first;
      if (step < taps) fill_sources<kStride>(a, runs, run_count, first, first + count, table);
      to = pack_rows<kStride, kRuns>(a.x + c * plane, stride, table, count, run_count, to);
    }
  }
}

template <int kStride>
INFERKIT_INLINE void pack_panel_of(const PackPixelsArgs& a, const Run* runs, int run_count, float* to) {
  if (run_count == 1) return pack_panel<kStride, 1>(a, runs, 1, to);
  if (run_count == 2) return pack_panel<kStride, 2>(a, runs, 2, to);
  pack_panel<kStride, 0>(a, runs, run_count, to);
}

void pack_pixels(const PackPixelsArgs& a) {
  const int64_t rows = a.channels * a.dim[0].kernel * a.dim[1].kernel * a.dim[2].kernel;
  float* to = a.to;
  const int64_t width = a.dim[2].out, height = a.dim[1].out;
  Position position = {{a.first / width / height, a.first / width % height, a.first % width}};
  for (int64_t pixel = 0; pixel < a.count; pixel += kPanel, to += rows * kPanel) {
    Run runs[kPanel];
    const int64_t left = a.count - pixel;
    const int n = runs_of(a, position, left < kPanel ? left : kPanel, runs);
    if (a.dim[2].stride == 1)
      pack_panel_of<1>(a, runs, n, to);
    else if (a.dim[2].stride == 2)
      pack_panel_of<2>(a, runs, n, to);
    else
      pack_panel_of<0>(a, runs, n, to);
  }
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
