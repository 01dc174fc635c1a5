// Implicit im2col in double, for every tier: a tap of eight neighbouring pixels reads eight places of each channel,
// which are worked out once for all channels. Mostly they are neighbours too.
#include <algorithm>
#include <bit>

#include "kernels/cpu/conv/conv.h"

namespace inferkit::kernels {
namespace {

constexpr int kLanes = 8;

/// Where the eight pixels of a panel have their first tap, by dimension. Pixels past the last stand nowhere.
struct Corners {
  int64_t at[kLanes][3];
  int lanes;
};

Corners corners_of(const PackPixelsArgs64& a, int64_t pixel, int64_t count) {
  Corners out;
  out.lanes = static_cast<int>(std::min<int64_t>(kLanes, count));
  const int64_t width = a.dim[2].out, height = a.dim[1].out;
  int64_t place[3] = {pixel / width / height, pixel / width % height, pixel % width};
  for (int lane = 0; lane < out.lanes; ++lane) {
    for (int d = 0; d < 3; ++d) out.at[lane][d] = place[d] * a.dim[d].stride - a.dim[d].pad_begin;
    if (++place[2] < width) continue;
    place[2] = 0;
    if (++place[1] < height) continue;
    place[1] = 0;
    ++place[0];
  }
  return out;
}

/// What the pixels read for one tap, of any channel: lanes that read padding are masked, and point at a place that is
/// there.
struct Places {
  int64_t at[kLanes];
  uint64_t keep[kLanes];
  bool any, neighbours;  // does any lane read the image; do all, one beside the other
};

Places places_of(const PackPixelsArgs64& a, const Corners& corners, const int64_t (&tap)[3]) {
  const ConvDim &d = a.dim[0], &h = a.dim[1], &w = a.dim[2];
  Places out;
  int64_t valid = -1;
  int kept = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    out.at[lane] = -1;
    if (lane < corners.lanes) {
      const int64_t z = corners.at[lane][0] + tap[0] * d.dilation, y = corners.at[lane][1] + tap[1] * h.dilation;
      const int64_t x = corners.at[lane][2] + tap[2] * w.dilation;
      if (z >= 0 && z < d.in && y >= 0 && y < h.in && x >= 0 && x < w.in) {
        out.at[lane] = valid = (z * h.in + y) * w.in + x;
        ++kept;
      }
    }
    out.keep[lane] = out.at[lane] < 0 ? 0 : ~uint64_t{0};
  }
  out.any = kept > 0;
  out.neighbours = kept == kLanes;
  for (int lane = 0; lane < kLanes; ++lane) {
    out.neighbours = out.neighbours && out.at[lane] == out.at[0] + lane;
    if (out.at[lane] < 0) out.at[lane] = valid;
  }
  return out;
}

void pack_tap(const PackPixelsArgs64& a, const Places& places, int64_t plane, int64_t step, double* to) {
  const double* x = a.x;
  for (int64_t c = 0; c < a.channels; ++c, x += plane, to += step) {
    if (places.neighbours) {
      std::copy_n(x + places.at[0], kLanes, to);
    } else if (!places.any) {
      std::fill_n(to, kLanes, 0.0);
    } else {
      for (int lane = 0; lane < kLanes; ++lane) {
        to[lane] = std::bit_cast<double>(std::bit_cast<uint64_t>(x[places.at[lane]]) & places.keep[lane]);
      }
    }
  }
}

}  // namespace

void pack_pixels64(const PackPixelsArgs64& a) {
  const ConvDim &d = a.dim[0], &h = a.dim[1], &w = a.dim[2];
  const int64_t taps = d.kernel * h.kernel * w.kernel, plane = d.in * h.in * w.in;
  double* to = a.to;
  for (int64_t pixel = 0; pixel < a.count; pixel += kLanes, to += a.channels * taps * kLanes) {
    const Corners corners = corners_of(a, a.first + pixel, a.count - pixel);
    double* row = to;
    for (int64_t k0 = 0; k0 < d.kernel; ++k0) {
      for (int64_t k1 = 0; k1 < h.kernel; ++k1) {
        for (int64_t k2 = 0; k2 < w.kernel; ++k2, row += kLanes) {
          pack_tap(a, places_of(a, corners, {k0, k1, k2}), plane, taps * kLanes, row);
        }
      }
    }
  }
}

}  // namespace inferkit::kernels
