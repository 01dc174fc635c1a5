#include "kernels/cuda/functions.h"
#include "kernels/cuda/platform.h"
#include "kernels/cuda/pool.h"

namespace inferkit::kernels::cuda {
namespace {

/// The taps [first, last) of output `o` that lie below `end` and, with from_start, not before the image.
struct TapRange {
  int32_t start, first, last;
};
INFERKIT_DEVICE TapRange taps_within(const WindowAxis& d, int32_t o, int32_t end, bool from_start) {
  const int32_t start = o * d.stride - d.pad;
  int32_t first = from_start && start < 0 ? (-start + d.dilation - 1) / d.dilation : 0;
  int32_t last = end > start ? (end - start + d.dilation - 1) / d.dilation : 0;
  if (last > d.kernel) last = d.kernel;
  if (first > last) first = last;
  return {start, first, last};
}

/// What an average divides by along one dimension; 1 instead of 0.
INFERKIT_DEVICE F32x16 divisor(const WindowAxis& d, int32_t o, int32_t pad_end, bool include_pad) {
  const TapRange t = include_pad ? taps_within(d, o, d.in + pad_end, false) : taps_within(d, o, d.in, true);
  return {t.last > t.first ? static_cast<float>(t.last - t.first) : 1.0f};
}

INFERKIT_DEVICE F32x16 combined(bool average, F32x16 a, F32x16 b) { return average ? a + b : nan_max(a, b); }

/// What is combined one after the other, in chunks.
struct Chunks {
  F32x16 total, part;
  int32_t chunk, left;  // of this chunk
  bool first;           // chunk
};
INFERKIT_DEVICE Chunks begin(F32x16 v, int32_t chunk) { return {v, v, chunk, chunk - 1, true}; }
INFERKIT_DEVICE F32x16 finished(bool average, const Chunks& c) {
  return c.first ? c.part : combined(average, c.total, c.part);
}
INFERKIT_DEVICE void add(bool average, Chunks& c, F32x16 v) {
  if (c.left-- > 0) {
    c.part = combined(average, c.part, v);
    return;
  }
  c.total = finished(average, c);
  c.part = v;
  c.left = c.chunk - 1;
  c.first = false;
}

}  // namespace

INFERKIT_KERNEL(pool_planes, PoolParams, 256, 3) {
  const int32_t area = p.h.out * p.w.out, volume = p.d.out * area;
  const int64_t n = p.planes * volume, row_step = int64_t{p.h.dilation} * p.w.in;
  const int64_t slice_step = int64_t{p.d.dilation} * p.h.in * p.w.in;
  const F32x16 fill{p.average ? 0.0f : -__builtin_inff()};
  for (int64_t i = first_element(); i < n; i += element_step()) {
    const int64_t plane = i / volume;
    const auto place = static_cast<int32_t>(i - plane * volume);
    const int32_t od = place / area, oh = place % area / p.w.out, ow = place % p.w.out;
    const TapRange deep = taps_within(p.d, od, p.d.in, true), down = taps_within(p.h, oh, p.h.in, true);
    const int32_t slices = deep.last - deep.first, rows = slices > 0 ? down.last - down.first : 0;
    const int64_t slice = plane * p.d.in + deep.start + int64_t{deep.first} * p.d.dilation;
    const float* const top = p.x + (slice * p.h.in + down.start + int64_t{down.first} * p.h.dilation) * p.w.in;
    Chunks across = begin(fill, p.w_chunk);
#pragma unroll 1
    for (int32_t l = 0; l < p.w.kernel; ++l) {
      const int32_t column = ow * p.w.stride - p.w.pad + l * p.w.dilation;
      F32x16 all = fill;
      if (rows > 0 && column >= 0 && column < p.w.in) {
        const float* row = top + column;
        Chunks of_column = begin(F32x16{*row}, p.h_chunk);
#pragma unroll 1
        for (int32_t k = 0; k < rows; ++k, row += row_step) {
#pragma unroll 1
          for (int32_t s = k == 0 ? 1 : 0; s < slices; ++s) add(p.average, of_column, F32x16{row[s * slice_step]});
        }
        all = finished(p.average, of_column);
      }
      if (l == 0) {
        across = begin(all, p.w_chunk);
      } else {
        add(p.average, across, all);
      }
    }
    F32x16 out = finished(p.average, across);
    if (!p.average) {
      out = out + F32x16{0};  // of zeros of both signs +0, and of a subnormal
    } else {
      const F32x16 slab = divisor(p.d, od, p.d_pad_end, p.include_pad) * divisor(p.h, oh, p.h_pad_end, p.include_pad);
      out = out / (slab * divisor(p.w, ow, p.w_pad_end, p.include_pad));
    }
    p.y[i] = out.v;
  }
}

INFERKIT_KERNEL(pool_max_indexed, PoolIndexParams, 256, 3) {
  const int32_t area = p.h.out * p.w.out, volume = p.d.out * area;
  const int64_t n = p.planes * volume, in = int64_t{p.d.in} * p.h.in * p.w.in;
  for (int64_t i = first_element(); i < n; i += element_step()) {
    const int64_t plane = i / volume;
    const auto place = static_cast<int32_t>(i - plane * volume);
    const TapRange deep = taps_within(p.d, place / area, p.d.in, true);
    const TapRange down = taps_within(p.h, place % area / p.w.out, p.h.in, true);
    const TapRange across = taps_within(p.w, place % p.w.out, p.w.in, true);
    const float* const x = p.x + plane * in;
    float best = -__builtin_inff();
    int64_t where = -1;
    for (int32_t a = deep.first; a < deep.last; ++a) {
      for (int32_t b = down.first; b < down.last; ++b) {
        const int64_t row =
            (int64_t{deep.start + a * p.d.dilation} * p.h.in + down.start + b * p.h.dilation) * p.w.in + across.start;
        for (int32_t c = across.first; c < across.last; ++c) {
          const int64_t at = row + int64_t{c} * p.w.dilation;
          const float v = x[at];
          if (where >= 0 && !(v > best) && !(v != v && best == best)) continue;
          best = v;
          where = at;
        }
      }
    }
    p.y[i] = __fadd_rn(best, 0.0f);
    if (!p.index) continue;
    if (p.column_major && where >= 0) {
      const int64_t w = where % p.w.in, h = where / p.w.in % p.h.in, d = where / p.w.in / p.h.in;
      where = d + p.d.in * (h + p.h.in * w);
    }
    p.index[i] = where < 0 ? -1 : plane * in + where;
  }
}

INFERKIT_KERNEL(affine, AffineParams, 256, 4) {
  const int64_t n = p.batch * p.channels * p.area;
  for (int64_t i = first_element(); i < n; i += element_step()) {
    const int64_t channel = i / p.area % p.channels;
    p.y[i] = __fmaf_rn(p.x[i], p.scale[channel], p.scale[p.channels + channel]);
  }
}

}  // namespace inferkit::kernels::cuda
