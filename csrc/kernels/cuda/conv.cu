#include "kernels/cuda/conv.h"
#include "kernels/cuda/functions.h"
#include "kernels/cuda/platform.h"

namespace inferkit::kernels::cuda {
namespace {

/// A term of a sum: where its element lies from the window's first, and in which row, line and column.
struct alignas(16) Tap {
  int32_t offset, d0, d1, d2;
};

/// The output pixel that a thread works at: where its window begins, in the group's image and in the output.
struct Pixel {
  int64_t from, to;  // elements from the image and group 0 of x and y
  int32_t at[3];     // of the window's first element
  bool inside;
};

INFERKIT_DEVICE int32_t in_area(const ConvParams& p) { return p.axes[0].in * p.axes[1].in * p.axes[2].in; }
INFERKIT_DEVICE int32_t out_area(const ConvParams& p) { return p.axes[0].out * p.axes[1].out * p.axes[2].out; }
INFERKIT_DEVICE int32_t taps_of(const ConvParams& p) { return p.axes[0].kernel * p.axes[1].kernel * p.axes[2].kernel; }

INFERKIT_DEVICE Pixel pixel_at(const ConvParams& p, int64_t number) {
  const int32_t area = out_area(p);
  Pixel out{};
  out.inside = number < p.batch * area;
  if (!out.inside) return out;
  const auto all = static_cast<int32_t>(number), image = all / area, place = all % area;
  const int32_t o[3] = {place / p.axes[2].out / p.axes[1].out, place / p.axes[2].out % p.axes[1].out,
                        place % p.axes[2].out};
  for (int d = 0; d < 3; ++d) out.at[d] = o[d] * p.axes[d].stride - p.axes[d].pad;
  out.from = int64_t{image} * p.groups * p.channels * in_area(p) +
             (int64_t{out.at[0]} * p.axes[1].in + out.at[1]) * p.axes[2].in + out.at[2];
  out.to = int64_t{image} * p.groups * p.filters * area + place;
  return out;
}

INFERKIT_DEVICE Tap tap_at(const ConvParams& p, int32_t k) {
  const int32_t taps = taps_of(p), channel = k / taps, tap = k % taps;
  const int32_t i = tap / p.axes[2].kernel / p.axes[1].kernel, j = tap / p.axes[2].kernel % p.axes[1].kernel,
                l = tap % p.axes[2].kernel;
  Tap out{};
  out.d0 = i * p.axes[0].dilation;
  out.d1 = j * p.axes[1].dilation;
  out.d2 = l * p.axes[2].dilation;
  out.offset = channel * in_area(p) + (out.d0 * p.axes[1].in + out.d1) * p.axes[2].in + out.d2;
  return out;
}

/// One tap after another, without divisions.
struct TapWalk {
  Tap tap;
  int32_t i, j, l;
};
INFERKIT_DEVICE TapWalk walk_from(const ConvParams& p, int32_t k) {
  const int32_t tap = k % taps_of(p);
  return {tap_at(p, k), tap / p.axes[2].kernel / p.axes[1].kernel, tap / p.axes[2].kernel % p.axes[1].kernel,
          tap % p.axes[2].kernel};
}
INFERKIT_DEVICE void go_on(const ConvParams& p, TapWalk& w) {
  w.tap.offset += p.axes[2].dilation;
  w.tap.d2 += p.axes[2].dilation;
  if (++w.l < p.axes[2].kernel) return;
  w.l = 0;
  w.tap.offset += p.axes[1].dilation * p.axes[2].in - w.tap.d2;
  w.tap.d2 = 0;
  w.tap.d1 += p.axes[1].dilation;
  if (++w.j < p.axes[1].kernel) return;
  w.j = 0;
  w.tap.offset += (p.axes[0].dilation * p.axes[1].in - w.tap.d1) * p.axes[2].in;
  w.tap.d1 = 0;
  w.tap.d0 += p.axes[0].dilation;
  if (++w.i < p.axes[0].kernel) return;
  w.i = 0;
  w.tap.offset += in_area(p) - w.tap.d0 * p.axes[1].in * p.axes[2].in;
  w.tap.d0 = 0;
}

INFERKIT_DEVICE bool within(int32_t at, int32_t size) {
  return static_cast<uint32_t>(at) < static_cast<uint32_t>(size);
}

/// The element of x under a tap, or zero in the padding. `x` is that of the group.
INFERKIT_DEVICE float element_at(const ConvParams& p, const float* x, const Pixel& pixel, const Tap& tap) {
  const bool inside = pixel.inside && within(pixel.at[0] + tap.d0, p.axes[0].in) &&
                      within(pixel.at[1] + tap.d1, p.axes[1].in) && within(pixel.at[2] + tap.d2, p.axes[2].in);
  return inside ? x[pixel.from + tap.offset] : 0.0f;
}

INFERKIT_DEVICE float finished(const ConvParams& p, float sum, int64_t filter) {
  if (p.bias) {
    sum = __fadd_rn(sum, p.bias[filter]);
  } else if (p.adds_zero) {
    sum = __fadd_rn(sum, 0.0f);
  }
  return p.act == Unary::kIdentity ? sum : apply_unary(p.act, sum, p.alpha, p.beta);
}

INFERKIT_DEVICE int32_t less(int32_t a, int32_t b) { return a < b ? a : b; }

}  // namespace

// As gemm_tiled: the filters are A, the windows are B, whose elements are found by a table of the next kConvDepth taps.
// Thread t makes filters 4 (t / 16) ... + 3 at pixels 4 (t % 16) ... + 3 of the tile, and loads those of pixel t % 64.
INFERKIT_KERNEL(conv_tiled, ConvParams, 256, 2) {
  INFERKIT_SHARED(float, shared);
  constexpr int kPitch = kConvTile + 4;
  float* const as = shared;                                                    // [depth][filter]
  float* const bs = shared + kConvDepth * kPitch;                              // [depth][pixel]
  Tap* const taps = reinterpret_cast<Tap*>(shared + 2 * kConvDepth * kPitch);  // [step % 2][depth]
  const int t = static_cast<int>(threadIdx.x), tr = t / 16 * 4, tc = t % 16 * 4;
  const int32_t k = p.channels * taps_of(p), filter0 = static_cast<int32_t>(blockIdx.y) * kConvTile;
  const int64_t pixel0 = int64_t{blockIdx.x} * kConvTile;
  const Pixel mine = pixel_at(p, pixel0 + t % kConvTile);
  for (int32_t group = static_cast<int32_t>(blockIdx.z); group < p.groups; group += static_cast<int32_t>(gridDim.z)) {
    const float* const x = p.x + int64_t{group} * p.channels * in_area(p);
    const float* const w = p.w + int64_t{group} * p.filters * k;
    float sum[4][4] = {}, part[4][4] = {};
    bool holds = false;
    int half = 0;
    __syncthreads();  // the last group's taps have been read
    if (t < kConvDepth && t < k) taps[t] = tap_at(p, t);
    for (int32_t begin = 0; begin < k; begin += p.chunk) {
      const int32_t end = less(k, begin + p.chunk);
      for (int32_t k0 = begin; k0 < end; k0 += kConvDepth) {
        const int32_t depths = less(kConvDepth, end - k0);
        __syncthreads();
        for (int i = t; i < kConvDepth * kConvTile; i += static_cast<int>(kConvThreads)) {
          const int depth = i % kConvDepth, f = i / kConvDepth;
          const bool inside = filter0 + f < p.filters && depth < depths;
          as[depth * kPitch + f] = inside ? w[int64_t{filter0 + f} * k + k0 + depth] : 0.0f;
        }
        for (int depth = t / kConvTile; depth < kConvDepth; depth += static_cast<int>(kConvThreads) / kConvTile) {
          bs[depth * kPitch + t % kConvTile] =
              depth < depths ? element_at(p, x, mine, taps[half * kConvDepth + depth]) : 0.0f;
        }
        half ^= 1;
        if (t < kConvDepth && k0 + depths + t < k) taps[half * kConvDepth + t] = tap_at(p, k0 + depths + t);
        __syncthreads();
#pragma unroll 4
        for (int depth = 0; depth < depths; ++depth) {
          const float4 a = load4(as + depth * kPitch + tr);
          const float4 b = load4(bs + depth * kPitch + tc);
          const float av[4] = {a.x, a.y, a.z, a.w}, bv[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
          for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) part[i][j] = __fmaf_rn(av[i], bv[j], part[i][j]);
          }
        }
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          sum[i][j] = holds ? __fadd_rn(sum[i][j], part[i][j]) : part[i][j];
          part[i][j] = 0;
        }
      }
      holds = true;
    }
    const int32_t area = out_area(p);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const Pixel pixel = pixel_at(p, pixel0 + tc + j);
      if (!pixel.inside) continue;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int32_t f = filter0 + tr + i;
        if (f >= p.filters) continue;
        const int64_t filter = int64_t{group} * p.filters + f;
        p.y[pixel.to + filter * area] = finished(p, sum[i][j], filter);
      }
    }
  }
}

INFERKIT_KERNEL(conv_split, ConvParams, 256, 2) {
  INFERKIT_SHARED(float, parts);         // [warp][filter][pixel]
  constexpr int kWarps = kSplitFilters;  // each also adds up one filter
  const int lane = static_cast<int>(threadIdx.x) % kSplitPixels, warp = static_cast<int>(threadIdx.x) / kSplitPixels;
  const int32_t k = p.channels * taps_of(p), chunks = (k + p.chunk - 1) / p.chunk;
  const int32_t filter0 = static_cast<int32_t>(blockIdx.y) * kSplitFilters;
  const Pixel pixel = pixel_at(p, int64_t{blockIdx.x} * kSplitPixels + lane);
  for (int32_t group = static_cast<int32_t>(blockIdx.z); group < p.groups; group += static_cast<int32_t>(gridDim.z)) {
    const float* const x = p.x + int64_t{group} * p.channels * in_area(p);
    const float* const w = p.w + (int64_t{group} * p.filters + filter0) * k;
    const int32_t filters = less(kSplitFilters, p.filters - filter0);
    float sum = 0;  // of filter `warp`
    for (int32_t first = 0; first < chunks; first += kWarps) {
      float part[kSplitFilters] = {};
      if (first + warp < chunks) {
        const int32_t begin = (first + warp) * p.chunk, end = less(k, begin + p.chunk);
        TapWalk walk = walk_from(p, begin);
        for (int32_t i = begin; i < end; ++i, go_on(p, walk)) {
          const float value = element_at(p, x, pixel, walk.tap);
#pragma unroll
          for (int f = 0; f < kSplitFilters; ++f) {
            if (f < filters) part[f] = __fmaf_rn(w[int64_t{f} * k + i], value, part[f]);
          }
        }
      }
#pragma unroll
      for (int f = 0; f < kSplitFilters; ++f) parts[(warp * kSplitFilters + f) * kSplitPixels + lane] = part[f];
      __syncthreads();
      const int count = less(kWarps, chunks - first);
      for (int c = 0; c < count; ++c) {
        const float next = parts[(c * kSplitFilters + warp) * kSplitPixels + lane];
        sum = first + c == 0 ? next : __fadd_rn(sum, next);
      }
      __syncthreads();
    }
    if (pixel.inside && warp < filters) {
      const int64_t filter = int64_t{group} * p.filters + filter0 + warp;
      p.y[pixel.to + filter * out_area(p)] = finished(p, sum, filter);
    }
  }
}

INFERKIT_KERNEL(conv_direct, ConvParams, 256, 4) {
  const int32_t area = out_area(p), taps = taps_of(p), k = p.channels * taps;
  const int64_t n = p.batch * p.groups * p.filters * area;
  for (int64_t i = first_element(); i < n; i += element_step()) {
    const int64_t plane = i / area, image = plane / (int64_t{p.groups} * p.filters);
    const auto filter = static_cast<int32_t>(plane - image * p.groups * p.filters);
    const Pixel pixel = pixel_at(p, image * area + (i - plane * area));
    const float* const x = p.x + int64_t{filter / p.filters} * p.channels * in_area(p) + pixel.from;
    const float* const w = p.w + int64_t{filter} * k;
    float sum = 0, part = 0;
    int32_t at = 0, left = p.chunk;
    bool holds = false;
    for (int32_t c = 0; c < p.channels; ++c) {
      const float* const plane_x = x + int64_t{c} * in_area(p);
      for (int32_t a = 0; a < p.axes[0].kernel; ++a) {
        const int32_t d0 = a * p.axes[0].dilation;
        for (int32_t b = 0; b < p.axes[1].kernel; ++b) {
          const int32_t d1 = b * p.axes[1].dilation;
          const bool inside = within(pixel.at[0] + d0, p.axes[0].in) && within(pixel.at[1] + d1, p.axes[1].in);
          const int64_t line = (int64_t{d0} * p.axes[1].in + d1) * p.axes[2].in;
          for (int32_t l = 0; l < p.axes[2].kernel; ++l) {
            const int32_t d2 = l * p.axes[2].dilation;
            const float value = inside && within(pixel.at[2] + d2, p.axes[2].in) ? plane_x[line + d2] : 0.0f;
            part = __fmaf_rn(w[at++], value, part);
            if (--left > 0) continue;
            sum = holds ? __fadd_rn(sum, part) : part;
            holds = true;
            part = 0;
            left = p.chunk;
          }
        }
      }
    }
    if (left < p.chunk) sum = holds ? __fadd_rn(sum, part) : part;
    p.y[i] = finished(p, sum, filter);
  }
}

}  // namespace inferkit::kernels::cuda
