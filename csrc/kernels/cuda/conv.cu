#include "kernels/cuda/conv.h"
#include "kernels/cuda/conv_steps.h"
#include "kernels/cuda/tile_sums.h"

namespace inferkit::kernels::cuda {
namespace {

/// The filters of a step, [depth][filter]; w is the group's.
template <class Cut>
INFERKIT_DEVICE void copy_filters(const ConvParams& p, const float* w, int32_t filter0, const ConvStep& step,
                                  float* as) {
  const int t = static_cast<int>(threadIdx.x), terms = terms_of<Cut>(step);
  if (p.packed_filters != 0) {
    constexpr int kFours = Cut::kRows / 4, kLines = Cut::kThreads / kFours;
    const int32_t row = t % kFours * 4, line = t / kFours, filter = filter0 + row;
    float* const to = as + line * Cut::kRows + row;
    const auto first = reinterpret_cast<uintptr_t>(w);
    const int64_t from = int64_t{step.from + line} * p.packed_filters + filter;
#pragma unroll
    for (int i = 0; i < Cut::kDepth; i += kLines) {
      const bool there = (filter < p.packed_filters) & (line + i < terms);
      begin_copy<4>(to + i * Cut::kRows, behind(first, from + int64_t{i} * p.packed_filters), there);
    }
  } else {
    const int64_t k = int64_t{p.channels} * taps_of(p);
    constexpr int kLines = Cut::kThreads / Cut::kDepth;
    const int depth = t % Cut::kDepth;
#pragma unroll 1
    for (int row = t / Cut::kDepth; row < Cut::kRows && depth < terms; row += kLines) {
      const bool there = filter0 + row < p.filters;
      begin_copy<1>(as + depth * Cut::kRows + row, w + (there ? (filter0 + row) * k + step.from + depth : 0), there);
    }
  }
}

/// Adds kTerms terms, from `depth` on.
template <class Cut, int kTerms>
INFERKIT_DEVICE void add_some(Sums<Cut::kQuads>& sums, const float* a, const float* b, int depth) {
#pragma unroll
  for (int i = 0; i < kTerms; ++i) add_term(sums, a + (depth + i) * Cut::kRows, b + (depth + i) * Cut::kPitch);
}
/// Adds the terms of a step. What lies behind the end of a chunk is not added: even zeros would change a -0.
template <class Cut>
INFERKIT_DEVICE void add_terms(Sums<Cut::kQuads>& sums, const float* a, const float* b, int terms) {
  if (terms == Cut::kDepth) return add_some<Cut, Cut::kDepth>(sums, a, b, 0);
  int depth = 0;
#pragma unroll 1
  for (; depth + 4 <= terms; depth += 4) add_some<Cut, 4>(sums, a, b, depth);
#pragma unroll 1
  for (; depth < terms; ++depth) add_some<Cut, 1>(sums, a, b, depth);
}

template <class Cut>
INFERKIT_DEVICE void make_tiles(const ConvParams& p, float* shared) {
  constexpr int kSums = 4 * Cut::kQuads;
  const Corner corner = corner_of<Cut::kQuads>(static_cast<int>(threadIdx.x));
  const int64_t k = int64_t{p.channels} * taps_of(p);
  const int64_t w_step = k * (p.packed_filters != 0 ? p.packed_filters : p.filters);
  for_each_tile<Cut>(p, [&](int32_t group, int32_t chunk, int32_t chunks, int32_t filter0, int64_t pixel0) {
    const float* const w = p.w + group * w_step;
    Sums<Cut::kQuads> whole{}, part{};
    bool holds = false;
    walk_chunks<Cut>(
        p, shared, source_of(p, p.x + int64_t{group} * p.channels * in_area(p), pixel_to_copy<Cut>(p, pixel0)), chunk,
        chunks, [&](const ConvStep& step, float* as) { copy_filters<Cut>(p, w, filter0, step, as); },
        [&](const float* as, const float* bs, int terms) {
          add_terms<Cut>(part, as + corner.row, bs + corner.column, terms);
        },
        [&] {
#pragma unroll
          for (int i = 0; i < kSums; ++i) {
#pragma unroll
            for (int j = 0; j < kSums; ++j) {
              whole.of[i][j] = holds ? __fadd_rn(whole.of[i][j], part.of[i][j]) : part.of[i][j];
              part.of[i][j] = 0;
            }
          }
          holds = true;
        });
    __syncthreads();  // all steps have been added
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
#pragma unroll
      for (int q = 0; q < Cut::kQuads; ++q) {
        const float* const s = whole.of[i] + 4 * q;
        store4(shared + (corner.row + i / 4 * kRowsApart + i % 4) * Cut::kPitch + corner.column + q * kColumnsApart,
               float4{s[0], s[1], s[2], s[3]});
      }
    }
    __syncthreads();
    put_tile<Cut>(p, shared, group, chunk, filter0, pixel0);
    __syncthreads();
  });
}

}  // namespace

INFERKIT_KERNEL(conv_tiled, ConvParams, 128, 5) {
  INFERKIT_SHARED(float, shared);
  make_tiles<ConvTiled>(p, shared);
}
INFERKIT_KERNEL(conv_wide, ConvParams, 128, 2) {
  INFERKIT_SHARED(float, shared);
  make_tiles<ConvWide>(p, shared);
}

INFERKIT_KERNEL(conv_add, ConvParams, 256, 4) {
  const int32_t k = p.channels * taps_of(p), chunks = (k - 1) / p.chunk + 1;
  const int32_t filters = p.groups * p.filters, area = out_area(p), n = static_cast<int32_t>(p.batch) * filters * area;
  for (int64_t element = first_element(); element < n; element += element_step()) {
    const auto i = static_cast<int32_t>(element);
    float sum = p.parts[i];
    const float* part = p.parts + i;
#pragma unroll 8
    for (int32_t c = 1; c < chunks; ++c) sum = __fadd_rn(sum, *(part += n));
    p.y[i] = finished(p, sum, i / area % filters);
  }
}

INFERKIT_KERNEL(conv_direct, ConvParams, 256, 4) {
  const int32_t area = out_area(p), taps = taps_of(p), k = p.channels * taps;
  const int64_t n = p.batch * p.groups * p.filters * area;
  for (int64_t i = first_element(); i < n; i += element_step()) {
    const int64_t plane = i / area, image = plane / (int64_t{p.groups} * p.filters);
    const auto filter = static_cast<int32_t>(plane - image * p.groups * p.filters);
    const Pixel pixel = pixel_at(p, image * area + (i - plane * area));
    const float* const x = p.x + int64_t{filter / p.filters} * p.channels * in_area(p) + pixel.image + pixel.from;
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
