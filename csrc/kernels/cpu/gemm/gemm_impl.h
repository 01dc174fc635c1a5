// GEMM of one tier; included by <tier>.cc. Micro-kernels (tile) hold kRows x kPanels x 16 sums in registers and run
// over K ascending: blocks of N and M only choose the order in which tiles run, and a block of K goes on from the sums
// that the last one left in C, so blocking cannot touch a bit.
#pragma once
#include "kernels/cpu/gemm/gemm.h"
#include "kernels/cpu/gemm/pack_impl.h"
#include "kernels/cpu/simd.h"

namespace inferkit::kernels::INFERKIT_TIER {

extern const VmathKernels kVmath;

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
/// K in one go, up to which A's rows and B's panels get along in L1.
constexpr int64_t kBlockDepth = 768;
/// Bytes of B that the rows of A pass over before the next ones come: half of a small L2.
constexpr int64_t kBlockBytes = 768 << 10;

/// The widest tile of so many rows. One row alone may spread wider: its B is read once, so that only latency counts.
constexpr int widest(int rows) {
  const int fit = kMaxSums / rows;
  const int panels = rows == 1 ? 8 : fit >= 8 ? 8 : fit >= 4 ? 4 : fit >= 2 ? 2 : 1;
  return kMaxSums < 8 && panels > 4 ? 4 : panels;
}

/// acc += A[kRows, k] B[k, kPanels * 16], k ascending.
template <int kRows, int kPanels>
INFERKIT_INLINE void multiply(F32x16 (&acc)[kRows][kPanels], const float* a, int64_t lda, const float* b,
                              int64_t b_k_stride, int64_t b_panel_stride, int64_t k) {
  // Rows in groups of three: x86 addresses base, base + lda and base + 2 lda without another register.
  constexpr int kGroups = (kRows + 2) / 3;
  const float* group[kGroups];
  for (int g = 0; g < kGroups; ++g) group[g] = a + 3 * g * lda;
  for (int64_t i = 0; i < k; ++i) {
    F32x16 bv[kPanels];
    _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) bv[p] = load(b + p * b_panel_stride);
    _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
      const F32x16 av = broadcast(group[r / 3][(r % 3) * lda + i]);
      _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) acc[r][p] = fma(av, bv[p], acc[r][p]);
    }
    b += b_k_stride;
  }
}

/// Segment s of k is [first(s), first(s + 1)).
INFERKIT_INLINE int64_t segment_start(int64_t k, int segments, int s) { return k * s / segments; }

/// One row's segments side by side, to hide the latency of FMA: the sums of each and their tree are those of tile().
template <int kRows, int kPanels, int kSegments>
INFERKIT_INLINE void multiply_segments(F32x16 (&acc)[kRows][kPanels], const float* a, int64_t lda, const float* b,
                                       int64_t b_k_stride, int64_t b_panel_stride, int64_t k) {
  F32x16 part[kSegments][kRows][kPanels];
  const float* sa[kSegments];
  const float* sb[kSegments];
  _Pragma("GCC unroll 4") for (int s = 0; s < kSegments; ++s) {
    const int64_t start = segment_start(k, kSegments, s);
    sa[s] = a + start;
    sb[s] = b + start * b_k_stride;
    _Pragma("GCC unroll 4") for (int r = 0; r < kRows; ++r) {
      _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) part[s][r][p] = s ? broadcast(0) : acc[r][p];
    }
  }
  const int64_t common = k / kSegments;
  for (int64_t i = 0; i < common; ++i) {
    _Pragma("GCC unroll 4") for (int s = 0; s < kSegments; ++s) {
      _Pragma("GCC unroll 4") for (int r = 0; r < kRows; ++r) {
        const F32x16 av = broadcast(sa[s][r * lda + i]);
        _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) {
          part[s][r][p] = fma(av, load(sb[s] + i * b_k_stride + p * b_panel_stride), part[s][r][p]);
        }
      }
    }
  }
  _Pragma("GCC unroll 4") for (int s = 0; s < kSegments; ++s) {
    if (segment_start(k, kSegments, s + 1) - segment_start(k, kSegments, s) == common) continue;
    multiply(part[s], sa[s] + common, lda, sb[s] + common * b_k_stride, b_k_stride, b_panel_stride, 1);
  }
  _Pragma("GCC unroll 4") for (int r = 0; r < kRows; ++r) {
    _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) {
      acc[r][p] = part[0][r][p] + part[1][r][p];
      if constexpr (kSegments == 4) acc[r][p] = acc[r][p] + (part[2][r][p] + part[3][r][p]);
    }
  }
}

/// The segments one after the other, each at the full width of the tile; partial sums wait in memory.
template <int kRows, int kPanels>
INFERKIT_INLINE void multiply_in_turn(F32x16 (&acc)[kRows][kPanels], const float* a, int64_t lda, const float* b,
                                      int64_t b_k_stride, int64_t b_panel_stride, int64_t k, int segments) {
  float waiting[2][kRows][kPanels][kLanes];
  int depth = 0;
  for (int s = 0; s < segments; ++s) {
    const int64_t start = segment_start(k, segments, s), end = segment_start(k, segments, s + 1);
    multiply(acc, a + start, lda, b + start * b_k_stride, b_k_stride, b_panel_stride, end - start);
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

/// A block of K: does it go on from C, and does it end with the bias, the residual and ReLU?
struct TileArgs : GemmArgs {
  bool resume = false, finish = true;
};

/// The first sums of a tile: zero, or what an earlier block of K left in C. `last` columns are in the last panel.
template <int kRows, int kPanels>
INFERKIT_INLINE void start(F32x16 (&acc)[kRows][kPanels], const TileArgs& g, int64_t row, int64_t column,
                           int64_t last) {
  _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
    _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) {
      const float* at = g.c + (row + r) * g.ldc + column + p * kPanelColumns;
      acc[r][p] = !g.resume                                  ? broadcast(0)
                  : p == kPanels - 1 && last < kPanelColumns ? load_partial(at, last)
                                                             : load(at);
    }
  }
}

/// Adds the bias. It comes last, so that sums which are small beside it are not rounded to its last place at every
/// step.
template <int kRows, int kPanels>
INFERKIT_INLINE void add_bias(F32x16 (&acc)[kRows][kPanels], const TileArgs& g, int64_t row, int64_t column,
                              int64_t last) {
  if (g.bias_kind == BiasKind::kPerRow) {
    _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
      const F32x16 bias = broadcast(g.bias[row + r]);
      _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) acc[r][p] = acc[r][p] + bias;
    }
  } else if (g.bias_kind == BiasKind::kPerColumn) {
    _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) {
      const float* at = g.bias + column + p * kPanelColumns;
      const F32x16 bias = p == kPanels - 1 && last < kPanelColumns ? load_partial(at, last) : load(at);
      _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) acc[r][p] = acc[r][p] + bias;
    }
  }
}

/// C[row .. row + kRows) x panels [panel .. panel + kPanels): product, bias, residual, ReLU.
template <int kRows, int kPanels>
void tile(const TileArgs& g, int64_t row, int64_t panel) {
  const float* a = g.a + row * g.lda;
  const float* b = g.b + panel * g.b_panel_stride;
  const int64_t column = panel * kPanelColumns;
  const int64_t last = g.n - column - (kPanels - 1) * kPanelColumns;  // columns of the last panel: 1 to 16 or more
  F32x16 acc[kRows][kPanels];
  start(acc, g, row, column, last);

  if (g.k_segments == 1) {
    multiply(acc, a, g.lda, b, g.b_k_stride, g.b_panel_stride, g.k);
  } else if (kRows * kPanels * 2 <= kMaxSums && g.k_segments == 2) {
    if constexpr (kRows * kPanels * 2 <= kMaxSums) {
      multiply_segments<kRows, kPanels, 2>(acc, a, g.lda, b, g.b_k_stride, g.b_panel_stride, g.k);
    }
  } else if (kRows * kPanels * 4 <= kMaxSums && g.k_segments == 4) {
    if constexpr (kRows * kPanels * 4 <= kMaxSums) {
      multiply_segments<kRows, kPanels, 4>(acc, a, g.lda, b, g.b_k_stride, g.b_panel_stride, g.k);
    }
  } else {
    multiply_in_turn(acc, a, g.lda, b, g.b_k_stride, g.b_panel_stride, g.k, g.k_segments);
  }

  if (g.finish) add_bias(acc, g, row, column, last);
  const float* residual = g.finish && g.residual ? g.residual + row * g.ldr + column : nullptr;
  float* c = g.c + row * g.ldc + column;
  const bool rectify = g.finish && g.act == Unary::kRelu;
  _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
    _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) {
      const int64_t at = p * kPanelColumns;
      const bool partial = p == kPanels - 1 && last < kPanelColumns;
      F32x16 v = acc[r][p];
      if (residual) v = v + (partial ? load_partial(residual + r * g.ldr + at, last) : load(residual + r * g.ldr + at));
      if (rectify) v = max(broadcast(0), v);
      if (partial) {
        store_partial(c + r * g.ldc + at, v, last);
      } else {
        store(c + r * g.ldc + at, v);
      }
    }
  }
}

using TileFn = void (*)(const TileArgs& g, int64_t row, int64_t panel);
struct TileRow {
  TileFn of_panels[kMaxPanels + 1];
};

template <int kRows, int kPanels>
constexpr TileFn tile_or_null() {
  if constexpr (kRows <= kMaxRows && kPanels <= widest(kRows)) return tile<kRows, kPanels>;
  return nullptr;
}
template <int kRows>
constexpr TileRow tile_row() {
  return {{nullptr, tile_or_null<kRows, 1>(), tile_or_null<kRows, 2>(), tile_or_null<kRows, 3>(),
           tile_or_null<kRows, 4>(), tile_or_null<kRows, 5>(), tile_or_null<kRows, 6>(), tile_or_null<kRows, 7>(),
           tile_or_null<kRows, 8>()}};
}
constexpr TileRow kTiles[] = {{},
                              tile_row<1>(),
                              tile_row<2>(),
                              tile_row<3>(),
                              tile_row<4>(),
                              tile_row<5>(),
                              tile_row<6>(),
                              tile_row<7>(),
                              tile_row<8>(),
                              tile_row<9>(),
                              tile_row<10>(),
                              tile_row<11>(),
                              tile_row<12>()};

INFERKIT_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Where part i of `parts` nearly equal parts of [0, total) begins: 13 rows are 7 + 6, never 12 + 1.
INFERKIT_INLINE int64_t part_start(int64_t total, int64_t parts, int64_t i) {
  return total / parts * i + (i < total % parts ? i : total % parts);
}

/// Rows [row, row + rows) of panels [first, first + width), in tiles as wide as the rows allow.
INFERKIT_INLINE void row_of_tiles(const TileArgs& g, int64_t row, int64_t rows, int64_t first, int64_t width) {
  const int64_t chunks = ceil_div(width, widest(static_cast<int>(rows)));
  for (int64_t i = 0; i < chunks; ++i) {
    const int64_t at = part_start(width, chunks, i), count = part_start(width, chunks, i + 1) - at;
    kTiles[rows].of_panels[count](g, row, first + at);
  }
}

/// The activation of those rows, which are still in L1. The functions are those of vmath: fused or not, the same bits.
INFERKIT_INLINE void activate(const TileArgs& g, int64_t row, int64_t rows, int64_t first, int64_t width) {
  const UnaryFn act = kVmath.unary[static_cast<size_t>(g.act)];
  const int64_t column = first * kPanelColumns;
  const int64_t columns = column + width * kPanelColumns < g.n ? width * kPanelColumns : g.n - column;
  for (int64_t r = row; r < row + rows; ++r) {
    float* c = g.c + r * g.ldc + column;
    act(c, c, columns, g.act_alpha, g.act_beta);
  }
}

void gemm(const GemmArgs& args) {
  if (args.m <= 0 || args.n <= 0) return;
  TileArgs g{args};
  if (g.k_segments == 0) g.k_segments = gemm_k_segments(g.k, g.n);
  const int64_t panels = ceil_div(g.n, kPanelColumns), row_tiles = ceil_div(g.m, kMaxRows);
  int64_t depths = 1, panel_block = panels;
  if (row_tiles > 1) {  // B comes by again: keep a block of it in L2, and A in L1
    // Sums wait in C between blocks of K, where a residual that is C itself would be overwritten.
    if (g.k > kBlockDepth && g.k_segments == 1 && g.residual != g.c) depths = ceil_div(g.k, kBlockDepth * 2 / 3);
    const int64_t fit = kBlockBytes / (ceil_div(g.k + 1, depths) * kPanelColumns * static_cast<int64_t>(sizeof(float)));
    panel_block = ceil_div(panels, ceil_div(panels, fit < 4 ? 4 : fit));
  }
  for (int64_t first = 0; first < panels; first += panel_block) {
    const int64_t width = first + panel_block < panels ? panel_block : panels - first;
    for (int64_t d = 0; d < depths; ++d) {
      const int64_t k = part_start(args.k, depths, d);
      g.k = part_start(args.k, depths, d + 1) - k;
      g.a = args.a + k;
      g.b = args.b + k * args.b_k_stride;
      g.resume = d > 0;
      g.finish = d + 1 == depths;
      for (int64_t t = 0; t < row_tiles; ++t) {
        const int64_t row = part_start(g.m, row_tiles, t), rows = part_start(g.m, row_tiles, t + 1) - row;
        row_of_tiles(g, row, rows, first, width);
        if (g.finish && g.act != Unary::kIdentity && g.act != Unary::kRelu) activate(g, row, rows, first, width);
      }
    }
  }
}

}  // namespace

extern const GemmKernels kGemm;
const GemmKernels kGemm = {compiled_isa, gemm, pack_b, pack_b_transposed};

}  // namespace inferkit::kernels::INFERKIT_TIER
