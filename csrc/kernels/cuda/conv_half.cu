#include "kernels/cuda/conv_half.h"
#include "kernels/cuda/conv_taps.h"
#include "kernels/cuda/half_sums.h"

namespace inferkit::kernels::cuda {
namespace {

/// The filters of a step in registers: eight terms of one for each item, as floats, or in the first as pairs.
template <int kRows, int kThreads>
struct HalfFilters {
  static constexpr int kItems = kRows * kHalfDepth / 8 / kThreads;
  float4 of[kItems][2];
};
template <int kRows, int kThreads>
INFERKIT_DEVICE void read_filters(HalfFilters<kRows, kThreads>& next, const HalfConvParams& h, int32_t group, int64_t k,
                                  int32_t filter0, const Step& step, int t) {
  const ConvParams& p = h.of;
  const int terms = terms_of<kHalfDepth>(step);
#pragma unroll
  for (int q = 0; q < next.kItems; ++q) {
    const int i = t + q * kThreads, depth = i % 4 * 8;
    const int32_t filter = filter0 + i / 4;
    const int64_t of_all = int64_t{group} * p.filters + filter;
    const int there = filter < p.filters ? terms - depth : 0;
    if (h.pairs) {
      const uint32_t* const at = h.pairs + of_all * h.pairs_row + (step.from + depth) / 2;
      next.of[q][0] = there > 0 ? load4(reinterpret_cast<const float*>(at)) : float4{0, 0, 0, 0};
    } else {
      const float* const at = p.w + of_all * k + step.from + depth;
      next.of[q][0] = read_quad(at, 1, there);
      next.of[q][1] = read_quad(at + 4, 1, there - 4);
    }
  }
}
template <Rounded kTo, int kRows, int kThreads>
INFERKIT_DEVICE void write_filters(const HalfFilters<kRows, kThreads>& next, const HalfConvParams& h, uint32_t* as,
                                   int t) {
#pragma unroll
  for (int q = 0; q < next.kItems; ++q) {
    const int i = t + q * kThreads;
    uint32_t* const to = as + i / 4 * kHalfPitchA + i % 4 * 4;
    const float4 &u = next.of[q][0], &v = next.of[q][1];
    if (h.pairs) {
      store4(reinterpret_cast<float*>(to), u);
    } else {
      store_words(
          to, uint4{pair_of<kTo>(u.x, u.y), pair_of<kTo>(u.z, u.w), pair_of<kTo>(v.x, v.y), pair_of<kTo>(v.z, v.w)});
    }
  }
}

INFERKIT_DEVICE float element_at(const ConvParams& p, const float* x, const Pixel& pixel, const Tap& tap) {
  return is_inside(p, pixel, tap) ? x[pixel.image + pixel.from + tap.offset] : 0.0f;
}
/// A sum becomes an element of y.
INFERKIT_DEVICE void put_element(const ConvParams& p, int32_t group, int32_t filter, const Pixel& pixel, float sum) {
  if (!pixel.inside || filter >= p.filters) return;
  const int64_t of_all = int64_t{group} * p.filters + filter;
  p.y[pixel.to + of_all * out_area(p)] = finished(p, sum, of_all);
}

/// The element of x under term `depth` of a step that has `terms`.
INFERKIT_DEVICE float term_at(const ConvParams& p, const float* x, const Pixel& pixel, const Tap* taps, int depth,
                              int terms) {
  return depth < terms ? element_at(p, x, pixel, taps[depth]) : 0.0f;
}

/// As make_tiles() of conv.cu; a thread reads every kLines-th pair of taps of one pixel.
template <Rounded kTo, int kSide>
INFERKIT_DEVICE void make_tiles(const HalfConvParams& h, uint32_t* shared) {
  const ConvParams& p = h.of;
  constexpr int kPitch = kHalfPitchB<kSide>;
  constexpr int kLines = static_cast<int>(kTileThreads) / kSide, kMine = kHalfPairs / kLines;
  Tap* const taps =
      reinterpret_cast<Tap*>(shared + kTileTotals<kSide> + 2 * kHalfStepWords<kSide, kSide>);  // [step % 2][depth]
  const int t = static_cast<int>(threadIdx.x), column = t % kSide, line = t / kSide;
  const int32_t k = p.channels * taps_of(p);
  const int32_t filter0 = static_cast<int32_t>(blockIdx.y) * kSide;
  const Pixel pixel = pixel_at(p, int64_t{blockIdx.x} * kSide + column);
  const auto note_taps = [&](const Step& step, int half) {
    if (t < kHalfDepth && step.from + t < step.end) {
      taps[half * kHalfDepth + t] = tap_at(p, static_cast<int32_t>(step.from) + t);
    }
  };
  for (int32_t group = static_cast<int32_t>(blockIdx.z); group < p.groups; group += static_cast<int32_t>(gridDim.z)) {
    const float* const x = p.x + int64_t{group} * p.channels * in_area(p);
    TileFragment<kSide> sums{};
    HalfFilters<kSide, static_cast<int>(kTileThreads)> next{};
    float low[kMine], high[kMine];
    note_taps(first_step(k, p.chunk), 0);
    __syncthreads();
    sum_half_tile<kTo, kSide>(
        sums, shared, k, p.chunk,
        [&](const Step& step, int half) {
          read_filters(next, h, group, k, filter0, step, t);
          const int terms = terms_of<kHalfDepth>(step);
          const Tap* const of_step = taps + half * kHalfDepth;
#pragma unroll
          for (int i = 0; i < kMine; ++i) {
            const int depth = 2 * (line + i * kLines);
            low[i] = term_at(p, x, pixel, of_step, depth, terms);
            high[i] = term_at(p, x, pixel, of_step, depth + 1, terms);
          }
          note_taps(step_after<kHalfDepth>(step, k, p.chunk), half ^ 1);
        },
        [&](uint32_t* as, uint32_t* bs) {
          write_filters<kTo>(next, h, as, t);
#pragma unroll
          for (int i = 0; i < kMine; ++i) bs[(line + i * kLines) * kPitch + column] = pair_of<kTo>(low[i], high[i]);
        });
    use_fragments<1, kSide>(sums, shared,
                            [&](int row, int, float sum) { put_element(p, group, filter0 + row, pixel, sum); });
  }
}

/// As conv_sliced.
template <Rounded kTo>
INFERKIT_DEVICE void make_slices(const HalfConvParams& h, uint32_t* shared) {
  const ConvParams& p = h.of;
  constexpr int kWords = kHalfSliceWords + kHalfTapWords;  // of a warp
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  Tap* const taps = reinterpret_cast<Tap*>(shared + warp * kWords + kHalfSliceWords);
  const int32_t k = p.channels * taps_of(p), filter0 = static_cast<int32_t>(blockIdx.y) * kSliceRows;
  const Pixel pixel = pixel_at(p, int64_t{blockIdx.x} * kSliceColumns + lane);
  for (int32_t group = static_cast<int32_t>(blockIdx.z); group < p.groups; group += static_cast<int32_t>(gridDim.z)) {
    const float* const x = p.x + int64_t{group} * p.channels * in_area(p);
    HalfFilters<kSliceRows, 32> next{};
    uint32_t windows[kHalfPairs];
    const float* const sums = sum_half_slice<kTo, kWords>(
        shared, k, p.chunk,
        [&](const Step& step) {
          const int terms = terms_of<kHalfDepth>(step);
          if (lane < terms) taps[lane] = tap_at(p, static_cast<int32_t>(step.from) + lane);
          read_filters(next, h, group, k, filter0, step, lane);
          __syncwarp();
#pragma unroll
          for (int i = 0; i < kHalfPairs; ++i) {
            windows[i] =
                pair_of<kTo>(term_at(p, x, pixel, taps, 2 * i, terms), term_at(p, x, pixel, taps, 2 * i + 1, terms));
          }
        },
        [&](uint32_t* as, uint32_t* bs) {
          write_filters<kTo>(next, h, as, lane);
#pragma unroll
          for (int i = 0; i < kHalfPairs; ++i) bs[i * kHalfPitchB<kSliceColumns> + lane] = windows[i];
        });
    for_each_of_slice([&](int e) { put_element(p, group, filter0 + e / kSliceColumns, pixel, sums[e]); });
  }
}

}  // namespace

INFERKIT_KERNEL(conv_bf16_wide, HalfConvParams, 256, 1) {
  INFERKIT_SHARED(uint32_t, shared);
  make_tiles<Rounded::kBf16, kWideTile>(p, shared);
}
INFERKIT_KERNEL(conv_bf16_tiled, HalfConvParams, 256, 2) {
  INFERKIT_SHARED(uint32_t, shared);
  make_tiles<Rounded::kBf16, kTile>(p, shared);
}
INFERKIT_KERNEL(conv_bf16_sliced, HalfConvParams, 256, 2) {
  INFERKIT_SHARED(uint32_t, shared);
  make_slices<Rounded::kBf16>(p, shared);
}
INFERKIT_KERNEL(conv_f16_wide, HalfConvParams, 256, 1) {
  INFERKIT_SHARED(uint32_t, shared);
  make_tiles<Rounded::kF16, kWideTile>(p, shared);
}
INFERKIT_KERNEL(conv_f16_tiled, HalfConvParams, 256, 2) {
  INFERKIT_SHARED(uint32_t, shared);
  make_tiles<Rounded::kF16, kTile>(p, shared);
}
INFERKIT_KERNEL(conv_f16_sliced, HalfConvParams, 256, 2) {
  INFERKIT_SHARED(uint32_t, shared);
  make_slices<Rounded::kF16>(p, shared);
}

}  // namespace inferkit::kernels::cuda
