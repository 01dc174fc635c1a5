// Convolution over blocks of sixteen channels; part of conv_impl.h. The lanes of a vector are filters, so that no lane
// idles however few pixels a row has, and the image is read where it lies: a value of it is one operand of many.
#pragma once
#include "kernels/cpu/conv/conv.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/transpose_inl.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

// How many sums fit the registers beside a row of the filters and a value of the image: pixels by blocks of filters.
#if defined(__AVX512F__)
constexpr int kMostPixels = 14, kMostFilters = 3;
constexpr int most_pixels(int blocks) { return blocks == 3 ? 9 : 14; }
#elif defined(__AVX2__) || defined(__aarch64__)
constexpr int kMostPixels = 6, kMostFilters = 1;
constexpr int most_pixels(int) { return 6; }
#else
constexpr int kMostPixels = 3, kMostFilters = 1;
constexpr int most_pixels(int) { return 3; }
#endif

/// Terms of a sum that are taken before the next pixels come: filters of so many stay in L2.
constexpr int64_t kBlocksDepth = 2048;

/// Where part i of `parts` nearly equal parts of [0, total) begins.
INFERKIT_INLINE int64_t blocks_part(int64_t total, int64_t parts, int64_t i) {
  return total / parts * i + (i < total % parts ? i : total % parts);
}

/// Terms [first, last) of a sum, in whole chunks.
struct Terms {
  int64_t first, last;
};

/// Neighbouring pixels of a row of the output by blocks of filters. Between two chunks the sums wait in y.
template <int kPixels, int kFilters, int kStep>
void blocks_tile(const ConvBlocksArgs& a, const float* x, const float* weights, const float* bias, Terms terms,
                 float* y) {
  F32x16 acc[kPixels][kFilters];
  const int64_t filter_step = a.k * kLanes;
  for (int64_t at = terms.first; at < terms.last; at += a.k_chunk) {
    _Pragma("GCC unroll 14") for (int r = 0; r < kPixels; ++r) {
      _Pragma("GCC unroll 3") for (int f = 0; f < kFilters; ++f) acc[r][f] = broadcast(0);
    }
    const int64_t end = terms.last - at < a.k_chunk ? terms.last : at + a.k_chunk;
    const float* w = weights + at * kLanes;
    for (int64_t k = at; k < end; ++k, w += kLanes) {
      const float* from = x + a.offsets[k];
      F32x16 wv[kFilters];
      _Pragma("GCC unroll 3") for (int f = 0; f < kFilters; ++f) wv[f] = load(w + f * filter_step);
      _Pragma("GCC unroll 14") for (int r = 0; r < kPixels; ++r) {
        const F32x16 v = broadcast(from[r * kStep]);
        _Pragma("GCC unroll 3") for (int f = 0; f < kFilters; ++f) acc[r][f] = fma(v, wv[f], acc[r][f]);
      }
    }
    _Pragma("GCC unroll 3") for (int f = 0; f < kFilters; ++f) {
      float* to = y + f * a.y_block_step;
      if (at > 0) {
        _Pragma("GCC unroll 14") for (int r = 0; r < kPixels; ++r) acc[r][f] = load(to + r * kLanes) + acc[r][f];
      }
      if (end == a.k) {
        if (bias) {
          const F32x16 b = load(bias + f * kLanes);
          _Pragma("GCC unroll 14") for (int r = 0; r < kPixels; ++r) acc[r][f] = acc[r][f] + b;
        }
        if (a.residual) {
          const float* more = a.residual + (to - a.y);
          _Pragma("GCC unroll 14") for (int r = 0; r < kPixels; ++r) acc[r][f] = acc[r][f] + load(more + r * kLanes);
        }
        _Pragma("GCC unroll 14") for (int r = 0; r < kPixels; ++r) acc[r][f] = within(acc[r][f], a.bounds);
      }
      _Pragma("GCC unroll 14") for (int r = 0; r < kPixels; ++r) store(to + r * kLanes, acc[r][f]);
    }
  }
}

using BlocksTile = void (*)(const ConvBlocksArgs& a, const float* x, const float* weights, const float* bias,
                            Terms terms, float* y);
template <int kPixels, int kFilters, int kStep>
constexpr BlocksTile blocks_tile_or_null() {
  if constexpr (kFilters <= kMostFilters && kPixels <= most_pixels(kFilters))
    return blocks_tile<kPixels, kFilters, kStep>;
  return nullptr;
}
template <int kFilters, int kStep>
struct BlocksTiles {
  static constexpr BlocksTile of_pixels[] = {nullptr,
                                             blocks_tile_or_null<1, kFilters, kStep>(),
                                             blocks_tile_or_null<2, kFilters, kStep>(),
                                             blocks_tile_or_null<3, kFilters, kStep>(),
                                             blocks_tile_or_null<4, kFilters, kStep>(),
                                             blocks_tile_or_null<5, kFilters, kStep>(),
                                             blocks_tile_or_null<6, kFilters, kStep>(),
                                             blocks_tile_or_null<7, kFilters, kStep>(),
                                             blocks_tile_or_null<8, kFilters, kStep>(),
                                             blocks_tile_or_null<9, kFilters, kStep>(),
                                             blocks_tile_or_null<10, kFilters, kStep>(),
                                             blocks_tile_or_null<11, kFilters, kStep>(),
                                             blocks_tile_or_null<12, kFilters, kStep>(),
                                             blocks_tile_or_null<13, kFilters, kStep>(),
                                             blocks_tile_or_null<14, kFilters, kStep>()};
};

/// kFilters blocks of filters, all rows; kStep: from a pixel of x to the next.
template <int kFilters, int kStep>
INFERKIT_INLINE void blocks_filters(const ConvBlocksArgs& a, int64_t first) {
  const float* weights = a.weights + first * a.k * kLanes;
  const float* bias = a.bias ? a.bias + first * kLanes : nullptr;
  float* y = a.y + first * a.y_block_step;
  const int64_t tiles = (a.width + most_pixels(kFilters) - 1) / most_pixels(kFilters);
  const int64_t step = kBlocksDepth / a.k_chunk > 0 ? kBlocksDepth / a.k_chunk * a.k_chunk : a.k_chunk;
  for (int64_t k = 0; k < a.k; k += step) {
    const Terms terms = {k, a.k - k < step ? a.k : k + step};
    for (int64_t row = 0; row < a.rows; ++row) {
      for (int64_t t = 0; t < tiles; ++t) {
        const int64_t column = blocks_part(a.width, tiles, t), end = blocks_part(a.width, tiles, t + 1);
        BlocksTiles<kFilters, kStep>::of_pixels[end - column](a, a.x + row * a.x_row_step + column * kStep, weights,
                                                              bias, terms, y + row * a.y_row_step + column * kLanes);
      }
    }
  }
}

template <int kStep>
INFERKIT_INLINE void blocks_all_filters(const ConvBlocksArgs& a) {
  // Three blocks side by side where rows are short, else two, so that the tiles hold many sums.
  const int64_t wide = a.width <= most_pixels(3) ? kMostFilters : kMostFilters < 2 ? kMostFilters : 2;
  const int64_t groups = (a.filter_blocks + wide - 1) / wide;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t first = blocks_part(a.filter_blocks, groups, g), end = blocks_part(a.filter_blocks, groups, g + 1);
    if (end - first == 1) {
      blocks_filters<1, kStep>(a, first);
    } else if constexpr (kMostFilters > 1) {
      end - first == 2 ? blocks_filters<2, kStep>(a, first) : blocks_filters<3, kStep>(a, first);
    }
  }
}

void conv_blocks(const ConvBlocksArgs& a) {
  if (a.k <= 0) return;
  a.x_step == 1 ? blocks_all_filters<1>(a) : blocks_all_filters<kLanes>(a);
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
