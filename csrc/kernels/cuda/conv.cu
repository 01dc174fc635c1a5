#include "kernels/cuda/conv.h"
#include "kernels/cuda/conv_taps.h"
#include "kernels/cuda/tile_sums.h"

namespace inferkit::kernels::cuda {
namespace {

/// The weights of a step, for kRows filters by kThreads threads, of which this is number t: w and `step` count from the
/// group's first filter.
template <int kRows, int kThreads>
struct Weights {
  static constexpr int kPitch = kRows + 4, kQuads = kRows * kTileDepth / 4 / kThreads;
  float4 of[kQuads];
};
template <int kRows, int kThreads>
INFERKIT_DEVICE void read_weights(Weights<kRows, kThreads>& next, const ConvParams& p, const float* w, int64_t k,
                                  int32_t filter0, const Step& step, int t) {
  const int terms = terms_of(step);
#pragma unroll
  for (int q = 0; q < next.kQuads; ++q) {
    const int i = t + q * kThreads, depth = i % 4 * 4;
    const int32_t filter = filter0 + i / 4;
    next.of[q] = read_quad(w + filter * k + step.from + depth, 1, filter < p.filters ? terms - depth : 0);
  }
}
template <int kRows, int kThreads>
INFERKIT_DEVICE void write_weights(const Weights<kRows, kThreads>& next, float* as, int t) {
#pragma unroll
  for (int q = 0; q < next.kQuads; ++q) {
    const int i = t + q * kThreads;
    write_across(as + i % 4 * 4 * next.kPitch + i / 4, next.kPitch, next.of[q]);
  }
}

/// The filters are A, the windows are B, whose elements are found by a table of the step's taps. A thread reads every
/// kLines-th tap of one pixel, for which it also finishes every kLines-th filter.
template <int kQuads>
INFERKIT_DEVICE void make_tiles(const ConvParams& p, float* shared) {
  constexpr int kSide = kQuads * kTile, kPitch = kSide + 4;
  constexpr int kLines = static_cast<int>(kTileThreads) / kSide, kMine = kTileDepth / kLines;
  Tap* const taps = reinterpret_cast<Tap*>(shared + kTileTotals<kSide> + 4 * kTileDepth * kPitch);  // [step % 2][depth]
  const int t = static_cast<int>(threadIdx.x), column = t % kSide, line = t / kSide;
  const int32_t k = p.channels * taps_of(p);
  const int32_t filter0 = static_cast<int32_t>(blockIdx.y) * kSide;
  const Pixel pixel = pixel_at(p, int64_t{blockIdx.x} * kSide + column);
  const auto note_taps = [&](const Step& step, int half) {
    if (t < kTileDepth && step.from + t < step.end) {
      taps[half * kTileDepth + t] = tap_at(p, static_cast<int32_t>(step.from) + t);
    }
  };
  for (int32_t group = static_cast<int32_t>(blockIdx.z); group < p.groups; group += static_cast<int32_t>(gridDim.z)) {
    const float* const x = p.x + int64_t{group} * p.channels * in_area(p);
    const float* const w = p.w + int64_t{group} * p.filters * k;
    Sums<kQuads> sums{};
    Weights<kSide, static_cast<int>(kTileThreads)> next;
    float windows[kMine];
    note_taps(first_step(k, p.chunk), 0);
    __syncthreads();
    sum_tile(
        sums, shared, k, p.chunk,
        [&](const Step& step, int half) {
          read_weights(next, p, w, k, filter0, step, t);
          const int terms = terms_of(step);
#pragma unroll
          for (int i = 0; i < kMine; ++i) {
            const int depth = line + i * kLines;
            windows[i] = depth < terms ? element_at(p, x, pixel, taps[half * kTileDepth + depth]) : 0.0f;
          }
          note_taps(step_after(step, k, p.chunk), half ^ 1);  // over those of the last step, which have been read
        },
        [&](float* as, float* bs) {
          write_weights(next, as, t);
#pragma unroll
          for (int i = 0; i < kMine; ++i) bs[(line + i * kLines) * kPitch + column] = windows[i];
        });
    use_sums<1>(sums, shared, [&](int row, int, float sum) { put_element(p, group, filter0 + row, pixel, sum); });
  }
}

}  // namespace

INFERKIT_KERNEL(conv_tiled, ConvParams, 256, 2) {
  INFERKIT_SHARED(float, shared);
  make_tiles<1>(p, shared);
}
INFERKIT_KERNEL(conv_wide, ConvParams, 256, 1) {
  INFERKIT_SHARED(float, shared);
  make_tiles<2>(p, shared);
}

// Lane l reads pixel l. There are as many threads as a line has pixels, or a multiple of that, so each also finishes
// its own pixel.
INFERKIT_KERNEL(conv_sliced, ConvParams, 256, 2) {
  INFERKIT_SHARED(float, shared);
  constexpr int kFloats = kSliceFloats + kSliceTapFloats;  // of a warp
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  Tap* const taps = reinterpret_cast<Tap*>(shared + warp * kFloats + kSliceFloats);
  const int32_t k = p.channels * taps_of(p), filter0 = static_cast<int32_t>(blockIdx.y) * kSliceRows;
  const Pixel pixel = pixel_at(p, int64_t{blockIdx.x} * kSliceColumns + lane);
  for (int32_t group = static_cast<int32_t>(blockIdx.z); group < p.groups; group += static_cast<int32_t>(gridDim.z)) {
    const float* const x = p.x + int64_t{group} * p.channels * in_area(p);
    const float* const w = p.w + int64_t{group} * p.filters * k;
    Weights<kSliceRows, 32> next;
    float windows[kTileDepth];
    const float* const sums = sum_slice<kFloats>(
        shared, k, p.chunk,
        [&](const Step& step) {
          const int terms = terms_of(step);
          if (lane < terms) taps[lane] = tap_at(p, static_cast<int32_t>(step.from) + lane);
          read_weights(next, p, w, k, filter0, step, lane);
          __syncwarp();
#pragma unroll
          for (int depth = 0; depth < kTileDepth; ++depth) {
            windows[depth] = depth < terms ? element_at(p, x, pixel, taps[depth]) : 0.0f;
          }
        },
        [&](float* as, float* bs) {
          write_weights(next, as, lane);
#pragma unroll
          for (int depth = 0; depth < kTileDepth; ++depth) bs[depth * kSlicePitchB + lane] = windows[depth];
        });
    for_each_of_slice([&](int e) { put_element(p, group, filter0 + e / kSliceColumns, pixel, sums[e]); });
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
