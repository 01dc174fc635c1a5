#include "kernels/cuda/conv_half.h"
#include "kernels/cuda/conv_steps.h"
#include "kernels/cuda/mma.h"

namespace inferkit::kernels::cuda {
namespace {

/// The filters of a step, [filter][pair], with zeros behind the last term. Those that are not constant come as floats,
/// which are rounded on the way.
template <Rounded kTo, class Cut>
INFERKIT_DEVICE void copy_filters(const HalfConvParams& h, int32_t group, int32_t filter0, const ConvStep& step,
                                  float* as) {
  const ConvParams& p = h.of;
  const int t = static_cast<int>(threadIdx.x);
  if (h.pairs) {
    constexpr int kFours = Cut::kDepth / 8, kLines = Cut::kThreads / kFours;
    const int32_t pair = t % kFours * 4, from = step.from / 2 + pair;
#pragma unroll
    for (int row = t / kFours; row < Cut::kRows; row += kLines) {
      const bool there = filter0 + row < p.filters && from < h.pairs_row;
      const int64_t filter = int64_t{group} * p.filters + (there ? filter0 + row : 0);
      begin_copy<4>(as + row * Cut::kPairPitch + pair,
                    reinterpret_cast<const float*>(h.pairs + filter * h.pairs_row + (there ? from : 0)), there);
    }
  } else {
    constexpr int kPairs = Cut::kDepth / 2, kLines = Cut::kThreads / kPairs;
    const int64_t k = int64_t{p.channels} * taps_of(p);
    const int pair = t % kPairs, terms = terms_of<Cut>(step) - 2 * pair;
#pragma unroll 1
    for (int row = t / kPairs; row < Cut::kRows; row += kLines) {
      const float* const w = p.w + (int64_t{group} * p.filters + filter0 + row) * k + step.from + 2 * pair;
      const bool there = filter0 + row < p.filters;
      reinterpret_cast<uint32_t*>(as)[row * Cut::kPairPitch + pair] =
          pair_of<kTo>(there && terms > 0 ? w[0] : 0.0f, there && terms > 1 ? w[1] : 0.0f);
    }
  }
}

/// Of a tile, warp w makes the half of the rows w / 2 and the half of the columns w % 2, as fragments of 16 by 8: of
/// each, elements 0 and 1 are columns 2 t and 2 t + 1 of row g, 2 and 3 those of row g + 8, where g is the lane / 4 and
/// t the lane % 4.
template <class Cut>
struct Fragments {
  float of[Cut::kQuads][4 * Cut::kQuads][4];
};

/// Adds the terms of a step, 16 at a time. Behind the last there must be zeros up to the next multiple of 16.
template <Rounded kTo, class Cut>
INFERKIT_DEVICE void add_terms(Fragments<Cut>& sums, const uint32_t* as, const float* bs, int terms) {
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int depth = 0; depth < Cut::kDepth; depth += 16) {
    if (depth >= terms) break;
    uint32_t a[Cut::kQuads][4], b[4 * Cut::kQuads][2];
#pragma unroll
    for (int i = 0; i < Cut::kQuads; ++i) {
      const uint32_t* const from = as + (16 * i + g) * Cut::kPairPitch + depth / 2 + t;
      a[i][0] = from[0];
      a[i][1] = from[8 * Cut::kPairPitch];
      a[i][2] = from[4];
      a[i][3] = from[8 * Cut::kPairPitch + 4];
    }
#pragma unroll
    for (int j = 0; j < 4 * Cut::kQuads; ++j) {
      const float* const from = bs + (depth + 2 * t) * Cut::kPitch + 8 * j + g;
      b[j][0] = pair_of<kTo>(from[0], from[Cut::kPitch]);
      b[j][1] = pair_of<kTo>(from[8 * Cut::kPitch], from[9 * Cut::kPitch]);
    }
#pragma unroll
    for (int i = 0; i < Cut::kQuads; ++i) {
#pragma unroll
      for (int j = 0; j < 4 * Cut::kQuads; ++j) multiply_add<kTo>(sums.of[i][j], a[i], b[j]);
    }
  }
}

/// Calls use(i, j, e) for the elements of fragments.
template <class Cut, class Use>
INFERKIT_DEVICE void for_each_fragment(const Use& use) {
#pragma unroll
  for (int i = 0; i < Cut::kQuads; ++i) {
#pragma unroll
    for (int j = 0; j < 4 * Cut::kQuads; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) use(i, j, e);
    }
  }
}

/// As make_tiles() of conv.cu.
template <Rounded kTo, class Cut>
INFERKIT_DEVICE void make_tiles(const HalfConvParams& h, float* shared) {
  const ConvParams& p = h.of;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int row0 = warp / 2 * (Cut::kRows / 2), column0 = warp % 2 * (Cut::kColumns / 2);
  for_each_tile<Cut>(p, [&](int32_t group, int32_t chunk, int32_t chunks, int32_t filter0, int64_t pixel0) {
    Fragments<Cut> whole{}, part{};
    bool holds = false;
    walk_chunks<Cut>(
        p, shared, source_of(p, p.x + int64_t{group} * p.channels * in_area(p), pixel_to_copy<Cut>(p, pixel0)), chunk,
        chunks, [&](const ConvStep& step, float* as) { copy_filters<kTo, Cut>(h, group, filter0, step, as); },
        [&](const float* as, const float* bs, int terms) {
          add_terms<kTo, Cut>(part, reinterpret_cast<const uint32_t*>(as) + row0 * Cut::kPairPitch, bs + column0,
                              terms);
        },
        [&] {
          for_each_fragment<Cut>([&](int i, int j, int e) {
            float &to = whole.of[i][j][e], &from = part.of[i][j][e];
            to = holds ? __fadd_rn(to, from) : from;
            from = 0;
          });
          holds = true;
        });
    __syncthreads();  // all steps have been added
    float* const mine = shared + (row0 + lane / 4) * Cut::kPitch + column0 + lane % 4 * 2;
    for_each_fragment<Cut>(
        [&](int i, int j, int e) { mine[(16 * i + e / 2 * 8) * Cut::kPitch + 8 * j + e % 2] = whole.of[i][j][e]; });
    __syncthreads();
    put_tile<Cut>(p, shared, group, chunk, filter0, pixel0);
    __syncthreads();
  });
}

}  // namespace

INFERKIT_KERNEL(conv_bf16_wide, HalfConvParams, 128, 2) {
  INFERKIT_SHARED(float, shared);
  make_tiles<Rounded::kBf16, HalfConvWide>(p, shared);
}
INFERKIT_KERNEL(conv_bf16_tiled, HalfConvParams, 128, 4) {
  INFERKIT_SHARED(float, shared);
  make_tiles<Rounded::kBf16, HalfConvTiled>(p, shared);
}
INFERKIT_KERNEL(conv_f16_wide, HalfConvParams, 128, 2) {
  INFERKIT_SHARED(float, shared);
  make_tiles<Rounded::kF16, HalfConvWide>(p, shared);
}
INFERKIT_KERNEL(conv_f16_tiled, HalfConvParams, 128, 4) {
  INFERKIT_SHARED(float, shared);
  make_tiles<Rounded::kF16, HalfConvTiled>(p, shared);
}

}  // namespace inferkit::kernels::cuda
