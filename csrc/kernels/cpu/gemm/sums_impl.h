// What every GEMM of a tier shares; part of gemm_impl.h: the sums of a tile over K, in one order wherever B lies, and
// the cutting of C into tiles.
#pragma once
#include "kernels/cpu/gemm/gemm.h"
#include "kernels/cpu/simd.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

// How many F32x16 of sums fit the registers beside a row of B and a value of A.
#if defined(__AVX512F__)
constexpr int kMaxSums = 24;
constexpr int kMaxRows = 12;
#elif defined(__AVX2__) || defined(__aarch64__)
constexpr int kMaxSums = 6;
constexpr int kMaxRows = 6;
#else
constexpr int kMaxSums = 3;
constexpr int kMaxRows = 3;
#endif
constexpr int kMaxPanels = 8;
/// The widest tile of so many rows. One row alone may spread wider: its B is read once, so that only latency counts.
constexpr int widest(int rows) {
  const int fit = kMaxSums / rows;
  const int panels = rows == 1 ? 8 : fit >= 8 ? 8 : fit >= 4 ? 4 : fit >= 2 ? 2 : 1;
  return kMaxSums < 8 && panels > 4 ? 4 : panels;
}

/// Where the panels of a tile lie in B: next() is the row for the next k, panel() a panel of it.
struct PanelsOfB {
  const float* at;
  int64_t k_stride, panel_stride;
  INFERKIT_MEMBER PanelsOfB from(int64_t k) const { return {at + k * k_stride, k_stride, panel_stride}; }
  INFERKIT_MEMBER const float* next() {
    const float* row = at;
    at += k_stride;
    return row;
  }
  INFERKIT_MEMBER const float* panel(const float* row, int p) const { return row + p * panel_stride; }
};

/// acc += A[kRows, k] B[k, kPanels * 16], k ascending.
template <int kRows, int kPanels, class B>
INFERKIT_INLINE void multiply(F32x16 (&acc)[kRows][kPanels], const float* a, int64_t lda, B b, int64_t k) {
  // Rows in groups of three: x86 addresses base, base + lda and base + 2 lda without another register.
  constexpr int kGroups = (kRows + 2) / 3;
  const float* group[kGroups];
  for (int g = 0; g < kGroups; ++g) group[g] = a + 3 * g * lda;
  for (int64_t i = 0; i < k; ++i) {
    F32x16 bv[kPanels];
    const float* row = b.next();
    _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) bv[p] = load(b.panel(row, p));
    _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
      const F32x16 av = broadcast(group[r / 3][(r % 3) * lda + i]);
      _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) acc[r][p] = fma(av, bv[p], acc[r][p]);
    }
  }
}

/// Segment s of k is [first(s), first(s + 1)).
INFERKIT_INLINE int64_t segment_start(int64_t k, int segments, int s) { return k * s / segments; }

/// One row's segments side by side, to hide the latency of FMA: the sums of each and their tree are those of tile().
template <int kRows, int kPanels, int kSegments, class B>
INFERKIT_INLINE void multiply_segments(F32x16 (&acc)[kRows][kPanels], const float* a, int64_t lda, B b, int64_t k) {
  F32x16 part[kSegments][kRows][kPanels];
  const float* sa[kSegments];
  B sb[kSegments];
  _Pragma("GCC unroll 4") for (int s = 0; s < kSegments; ++s) {
    const int64_t start = segment_start(k, kSegments, s);
    sa[s] = a + start;
    sb[s] = b.from(start);
    _Pragma("GCC unroll 4") for (int r = 0; r < kRows; ++r) {
      _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) part[s][r][p] = s ? broadcast(0) : acc[r][p];
    }
  }
  const int64_t common = k / kSegments;
  for (int64_t i = 0; i < common; ++i) {
    _Pragma("GCC unroll 4") for (int s = 0; s < kSegments; ++s) {
      const float* row = sb[s].next();
      _Pragma("GCC unroll 4") for (int r = 0; r < kRows; ++r) {
        const F32x16 av = broadcast(sa[s][r * lda + i]);
        _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) {
          part[s][r][p] = fma(av, load(sb[s].panel(row, p)), part[s][r][p]);
        }
      }
    }
  }
  _Pragma("GCC unroll 4") for (int s = 0; s < kSegments; ++s) {
    if (segment_start(k, kSegments, s + 1) - segment_start(k, kSegments, s) == common) continue;
    multiply(part[s], sa[s] + common, lda, sb[s], 1);
  }
  _Pragma("GCC unroll 4") for (int r = 0; r < kRows; ++r) {
    _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) {
      acc[r][p] = part[0][r][p] + part[1][r][p];
      if constexpr (kSegments == 4) acc[r][p] = acc[r][p] + (part[2][r][p] + part[3][r][p]);
    }
  }
}

/// The segments one after the other, each at the full width of the tile; partial sums wait in memory.
template <int kRows, int kPanels, class B>
INFERKIT_INLINE void multiply_in_turn(F32x16 (&acc)[kRows][kPanels], const float* a, int64_t lda, B b, int64_t k,
                                      int segments) {
  float waiting[2][kRows][kPanels][kLanes];
  int depth = 0;
  for (int s = 0; s < segments; ++s) {
    const int64_t start = segment_start(k, segments, s), end = segment_start(k, segments, s + 1);
    multiply(acc, a + start, lda, b.from(start), end - start);
    for (int bits = s; bits & 1; bits >>= 1) {  // (0 + 1) + (2 + 3)
      --depth;
      _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
        _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) acc[r][p] = load(waiting[depth][r][p]) + acc[r][p];
      }
    }
    if (s + 1 == segments) break;
    _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
      _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) {
        store(waiting[depth][r][p], acc[r][p]);
        acc[r][p] = broadcast(0);
      }
    }
    ++depth;
  }
}

/// acc += A B, in the layer's segments.
template <int kRows, int kPanels, class B>
INFERKIT_INLINE void add_product(F32x16 (&acc)[kRows][kPanels], const float* a, int64_t lda, B b, int64_t k,
                                 int segments) {
  if (segments == 1) return multiply(acc, a, lda, b, k);
  if constexpr (kRows * kPanels * 2 <= kMaxSums) {
    if (segments == 2) return multiply_segments<kRows, kPanels, 2>(acc, a, lda, b, k);
  }
  if constexpr (kRows * kPanels * 4 <= kMaxSums) {
    if (segments == 4) return multiply_segments<kRows, kPanels, 4>(acc, a, lda, b, k);
  }
  multiply_in_turn(acc, a, lda, b, k, segments);
}

/// The tiles of one kind of GEMM, Tile<rows, panels>::run, where that many sums fit.
template <class Args, template <int, int> class Tile>
struct Tiles {
  using Fn = void (*)(const Args& g, int64_t row, int64_t panel);
  struct Row {
    Fn of_panels[kMaxPanels + 1];
  };
  template <int kRows, int kPanels>
  static constexpr Fn tile_or_null() {
    if constexpr (kRows <= kMaxRows && kPanels <= widest(kRows)) return Tile<kRows, kPanels>::run;
    return nullptr;
  }
  template <int kRows>
  static constexpr Row row() {
    return {{nullptr, tile_or_null<kRows, 1>(), tile_or_null<kRows, 2>(), tile_or_null<kRows, 3>(),
             tile_or_null<kRows, 4>(), tile_or_null<kRows, 5>(), tile_or_null<kRows, 6>(), tile_or_null<kRows, 7>(),
             tile_or_null<kRows, 8>()}};
  }
  static constexpr Row of_rows[] = {{},       row<1>(), row<2>(), row<3>(),  row<4>(),  row<5>(), row<6>(),
                                    row<7>(), row<8>(), row<9>(), row<10>(), row<11>(), row<12>()};
};

INFERKIT_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Where part i of `parts` nearly equal parts of [0, total) begins: 13 rows are 7 + 6, never 12 + 1.
INFERKIT_INLINE int64_t part_start(int64_t total, int64_t parts, int64_t i) {
  return total / parts * i + (i < total % parts ? i : total % parts);
}

/// Rows [row, row + rows) of panels [first, first + width), in tiles as wide as the rows allow.
template <class Args, template <int, int> class Tile>
INFERKIT_INLINE void row_of_tiles(const Args& g, int64_t row, int64_t rows, int64_t first, int64_t width) {
  const int64_t chunks = ceil_div(width, widest(static_cast<int>(rows)));
  for (int64_t i = 0; i < chunks; ++i) {
    const int64_t at = part_start(width, chunks, i), count = part_start(width, chunks, i + 1) - at;
    Tiles<Args, Tile>::of_rows[rows].of_panels[count](g, row, first + at);
  }
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
