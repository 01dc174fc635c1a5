// GEMM of bf16 of one tier; included by <tier>.cc. Tiles are those of float (gemm/sums_impl.h) and run over pairs of K.
// The rows of A that a tile reads are turned into bf16 before it, in a buffer that stays in L1, and serve all panels of
// a block of B. Where there is VDPBF16PS the buffer holds pairs; elsewhere rounded floats, and B is widened as it is
// read, the odd elements first.
#pragma once
#include "kernels/cpu/gemm/sums_impl.h"
#include "kernels/cpu/gemm_bf16/finish_impl.h"
#include "kernels/cpu/gemm_bf16/pairs_impl.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

// ---- A pair of K
// -----------------------------------------------------------------------------------------------------

#if defined(__AVX512BF16__)
typedef uint32_t InBuffer;
constexpr int kPerPair = 1;
INFERKIT_INLINE void buffer_row(const float* x, int64_t n, InBuffer* y) { pair_row(x, n, y); }

template <int kRows, int kPanels>
INFERKIT_INLINE void add_pair(F32x16 (&acc)[kRows][kPanels], const InBuffer* const* groups, int64_t lda, int64_t i,
                              const uint32_t* b, int64_t panel_stride) {
  __m512bh bv[kPanels];
  _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) bv[p] = (__m512bh)load_pairs(b + p * panel_stride).p[0];
  _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
    const auto av = (__m512bh)_mm512_set1_epi32(static_cast<int>(groups[r / 3][(r % 3) * lda + i]));
    _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) {
      acc[r][p].p[0] = _mm512_dpbf16_ps(acc[r][p].p[0], av, bv[p]);
    }
  }
}
#else
typedef float InBuffer;
constexpr int kPerPair = 2;
INFERKIT_INLINE void buffer_row(const float* x, int64_t n, InBuffer* y) {
  for (int64_t i = 0; i < n; i += kLanes) {  // the buffer has room for whole vectors
    const U32x16 v = rounded(load_some(x + i, n - i));
    F32x16 f;
    for (int part = 0; part < kParts; ++part) f.p[part] = (Native)v.p[part];
    store(y + i, f);
  }
}

template <bool kOdd>
INFERKIT_INLINE F32x16 half_of(const uint32_t* b) {
  const U32x16 v = load_pairs(b);
  F32x16 r;
  INFERKIT_EACH_PART r.p[i] = (Native)(kOdd ? v.p[i] & 0xffff0000u : v.p[i] << 16);
  return r;
}

template <bool kOdd, int kRows, int kPanels>
INFERKIT_INLINE void add_half(F32x16 (&acc)[kRows][kPanels], const InBuffer* const* groups, int64_t lda, int64_t i,
                              const uint32_t* b, int64_t panel_stride) {
  F32x16 bv[kPanels];
  _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) bv[p] = half_of<kOdd>(b + p * panel_stride);
  _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
    const F32x16 av = broadcast(groups[r / 3][(r % 3) * lda + 2 * i + (kOdd ? 1 : 0)]);
    _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) acc[r][p] = fma(av, bv[p], acc[r][p]);
  }
}

template <int kRows, int kPanels>
INFERKIT_INLINE void add_pair(F32x16 (&acc)[kRows][kPanels], const InBuffer* const* groups, int64_t lda, int64_t i,
                              const uint32_t* b, int64_t panel_stride) {
  add_half<true>(acc, groups, lda, i, b, panel_stride);
  add_half<false>(acc, groups, lda, i, b, panel_stride);
}
#endif

// ---- Sums over K
// -----------------------------------------------------------------------------------------------------

/// What a tile reads: rows of A as they are in the buffer, and pairs of B.
struct PairOperands {
  const InBuffer* a;
  int64_t lda;
  const uint32_t* b;
  int64_t panel_stride;
  INFERKIT_MEMBER PairOperands from(int64_t pair) const {
    return {a + pair * kPerPair, lda, b + pair * kPanelColumns, panel_stride};
  }
};

/// Rows in groups of three: see multiply() in gemm/sums_impl.h.
template <int kRows>
struct RowGroups {
  static constexpr int kGroups = (kRows + 2) / 3;
  const InBuffer* at[kGroups];
  INFERKIT_MEMBER explicit RowGroups(const PairOperands& x) {
    for (int g = 0; g < kGroups; ++g) at[g] = x.a + 3 * g * x.lda;
  }
};

template <int kRows, int kPanels>
INFERKIT_INLINE void multiply_pairs(F32x16 (&acc)[kRows][kPanels], const PairOperands& x, int64_t pairs) {
  const RowGroups<kRows> rows(x);
  const uint32_t* b = x.b;
  for (int64_t i = 0; i < pairs; ++i, b += kPanelColumns) add_pair(acc, rows.at, x.lda, i, b, x.panel_stride);
}

/// kCount chunks side by side, `pairs` of each from `first` on.
template <int kCount, int kRows, int kPanels>
INFERKIT_INLINE void multiply_pairs_beside(F32x16 (*part)[kRows][kPanels], const PairOperands& x, int64_t chunk,
                                           int64_t first, int64_t end) {
  for (int64_t i = first; i < end; ++i) {
    _Pragma("GCC unroll 4") for (int s = 0; s < kCount; ++s) {
      const PairOperands at = x.from(s * chunk);
      const RowGroups<kRows> rows(at);
      add_pair(part[s], rows.at, at.lda, i, at.b + i * kPanelColumns, at.panel_stride);
    }
  }
}

/// acc = the sum of kCount chunks, after what it holds if it `holds` some. The last chunk has `last` pairs.
template <int kCount, int kRows, int kPanels>
INFERKIT_INLINE void add_pairs_beside(F32x16 (&acc)[kRows][kPanels], const PairOperands& x, int64_t chunk, int64_t last,
                                      bool holds) {
  F32x16 part[kCount][kRows][kPanels];
  _Pragma("GCC unroll 4") for (int s = 0; s < kCount; ++s) set_zero(part[s]);
  multiply_pairs_beside<kCount>(part, x, chunk, 0, last);
  multiply_pairs_beside<kCount - 1>(part, x, chunk, last, chunk);
  _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
    _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) {
      acc[r][p] = holds ? acc[r][p] + part[0][r][p] : part[0][r][p];
      _Pragma("GCC unroll 4") for (int s = 1; s < kCount; ++s) acc[r][p] = acc[r][p] + part[s][r][p];
    }
  }
}

/// acc = what was summed before, then the product in chunks of so many pairs: add_product() of gemm/sums_impl.h.
template <int kRows, int kPanels>
INFERKIT_INLINE void add_pair_product(F32x16 (&acc)[kRows][kPanels], const PairOperands& x, int64_t pairs,
                                      int64_t chunk, const Before<F32x16>& before) {
  bool resumes = before.at != nullptr, holds = false;
  int64_t at = 0;
  if constexpr (constexpr int kBeside = beside(kRows * kPanels); kBeside > 1) {
    if (resumes) load_before(acc, before);
    holds = resumes;
    resumes = false;
    for (; pairs - at > (kBeside - 1) * chunk; at += kBeside * chunk, holds = true) {
      const int64_t last = pairs - at - (kBeside - 1) * chunk;
      add_pairs_beside<kBeside>(acc, x.from(at), chunk, last < chunk ? last : chunk, holds);
    }
  }
  alignas(64) float waiting[kRows][kPanels][kLanes];
  for (; at < pairs; at += chunk, holds = true) {
    if (holds) store_sums(waiting, acc);
    set_zero(acc);
    multiply_pairs(acc, x.from(at), pairs - at < chunk ? pairs - at : chunk);
    if (holds) {
      _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
        _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) acc[r][p] = load(waiting[r][p]) + acc[r][p];
      }
    } else if (resumes) {
      add_before(acc, before);
    }
  }
  if (!holds) set_zero(acc);  // k is 0
}

// ---- Tiles
// -----------------------------------------------------------------------------------------------------------

/// A block of K for some rows: `x` begins at panel 0.
struct PairTile : PairTarget {
  PairOperands x{};
  int64_t pairs = 0, chunk = 1;
};

template <int kRows, int kPanels>
void pair_tile(const PairTile& g, int64_t row, int64_t panel) {
  const int64_t last = g.n - (panel + kPanels - 1) * kPanelColumns;  // columns of the last panel, or more
  const float* waiting = g.waiting + (row - g.first_row) * g.waiting_stride + (panel - g.first_panel) * kPanelColumns;
  F32x16 acc[kRows][kPanels];
  const PairOperands x{g.x.a + (row - g.first_row) * g.x.lda, g.x.lda, g.x.b + panel * g.x.panel_stride,
                       g.x.panel_stride};
  add_pair_product(acc, x, g.pairs, g.chunk, Before<F32x16>{g.resume ? waiting : nullptr, g.waiting_stride, last});
  alignas(64) float sums[kRows][kPanels][kLanes];
  store_sums(sums, acc);
  finish_pairs(g, row, kRows, panel, kPanels, sums[0][0], false);
}

template <int kRows, int kPanels>
struct PairTiles {
  static void run(const PairTile& g, int64_t row, int64_t panel) { pair_tile<kRows, kPanels>(g, row, panel); }
};

/// What the rows of a tile may take of L1, besides B.
constexpr int64_t kBufferBytes = 24 << 10;
/// Bytes of B that the rows of A pass over before the next ones come.
constexpr int64_t kPairBlockBytes = 512 << 10;

/// Rows [row, row + rows) from pair `pair` on, as the tiles read them.
INFERKIT_INLINE void read_rows(PairTile& g, const GemmArgsBf16& args, int64_t row, int64_t rows, int64_t pair,
                               InBuffer* buffer) {
  const int64_t first = 2 * pair, length = args.k - first < 2 * g.pairs ? args.k - first : 2 * g.pairs;
  g.x.a = buffer;
  g.x.lda = (g.pairs * kPerPair + kLanes - 1) / kLanes * kLanes;
  if (!args.a_is_pairs) {
    for (int64_t r = 0; r < rows; ++r) buffer_row(args.a + (row + r) * args.lda + first, length, buffer + r * g.x.lda);
    return;
  }
  const uint32_t* pairs = reinterpret_cast<const uint32_t*>(args.a) + row * args.lda + pair;
#if defined(__AVX512BF16__)
  g.x.a = pairs;
  g.x.lda = args.lda;
#else
  for (int64_t r = 0; r < rows; ++r) {
    uint32_t* to = reinterpret_cast<uint32_t*>(buffer + r * g.x.lda);
    for (int64_t i = 0; i < g.pairs; ++i) {
      to[2 * i] = pairs[r * args.lda + i] << 16;
      to[2 * i + 1] = pairs[r * args.lda + i] & 0xffff0000u;
    }
  }
#endif
}

void gemm(const GemmArgsBf16& args) {
  if (args.m <= 0 || args.n <= 0) return;
  PairTile g{{args}};
  const int64_t wanted = chunk_of_pairs(args.k_chunk == 0 ? sum_chunk(args.k, args.n) : args.k_chunk);
  g.chunk = (wanted < kLongestChunk ? wanted : kLongestChunk) / 2;
  const int64_t pairs = (args.k + 1) / 2, panels = ceil_div(g.n, kPanelColumns), row_tiles = ceil_div(g.m, kMaxRows);
  const int64_t chunks = pairs > 0 ? ceil_div(pairs, g.chunk) : 1;
  const int64_t most_rows = ceil_div(g.m, row_tiles);
  // Blocks of K are of whole chunks, and fit the buffer.
  const int64_t fit = kBufferBytes / static_cast<int64_t>(sizeof(InBuffer)) / most_rows / kPerPair;
  const int64_t chunks_fit = fit / g.chunk > 1 ? fit / g.chunk : 1;
  const int64_t depths = ceil_div(chunks, chunks_fit), depth = ceil_div(pairs, depths);
  // Sums wait in C between blocks of K; where that is the residual, those of a few panels wait here.
  alignas(64) float aside[kMaxRows * 4 * kPanelColumns];
  const bool waits_aside = depths > 1 && g.residual == g.c;
  int64_t panel_block = panels;
  if (row_tiles > 1) {
    const int64_t fit_panels = kPairBlockBytes / ((depth + 1) * 4 * kPanelColumns);
    panel_block = ceil_div(panels, ceil_div(panels, fit_panels < 4 ? 4 : fit_panels));
  }
  if (waits_aside && panel_block > 4) panel_block = 4;
  alignas(64) InBuffer buffer[kBufferBytes / sizeof(InBuffer) + kMaxRows * kLanes];
  g.x.panel_stride = g.b_panel_stride;
  for (int64_t first = 0; first < panels; first += panel_block) {
    const int64_t width = first + panel_block < panels ? panel_block : panels - first;
    const auto run = [&](int64_t d, int64_t t) {
      const int64_t pair = part_start(chunks, depths, d) * g.chunk;
      const int64_t end = d + 1 < depths ? part_start(chunks, depths, d + 1) * g.chunk : pairs;
      const int64_t row = part_start(g.m, row_tiles, t), rows = part_start(g.m, row_tiles, t + 1) - row;
      g.pairs = end - pair;
      g.x.b = args.b + pair * kPanelColumns;
      g.first_row = row;
      g.first_panel = waits_aside ? first : 0;
      g.waiting = waits_aside ? aside : args.c + row * args.ldc;
      g.waiting_stride = waits_aside ? 4 * kPanelColumns : args.ldc;
      g.resume = d > 0;
      g.finish = d + 1 == depths;
      read_rows(g, args, row, rows, pair, buffer);
      row_of_tiles<PairTile, PairTiles>(g, row, rows, first, width);
      if (g.finish && g.act != Unary::kIdentity && g.act != Unary::kRelu) activate_pairs(g, row, rows, first, width);
    };
    if (waits_aside) {
      for (int64_t t = 0; t < row_tiles; ++t) {
        for (int64_t d = 0; d < depths; ++d) run(d, t);
      }
    } else {
      for (int64_t d = 0; d < depths; ++d) {
        for (int64_t t = 0; t < row_tiles; ++t) run(d, t);
      }
    }
  }
}

}  // namespace

namespace {
#if defined(__AVX512BF16__)
const char* compiled_for() { return "avx512bf16"; }
constexpr double kProductsPerNano = 50;
#else
const char* compiled_for() { return compiled_isa(); }
#if defined(__AVX512F__)
constexpr double kProductsPerNano = 80;
#elif defined(__AVX2__)
constexpr double kProductsPerNano = 45;
#else
constexpr double kProductsPerNano = 17;
#endif
#endif
}  // namespace

extern const GemmBf16Kernels kGemmBf16;
const GemmBf16Kernels kGemmBf16 = {compiled_for, kProductsPerNano, gemm, pack_b_pairs, pack_b_pairs_transposed,
                                   pack_a_pairs, pack_window_pairs};

}  // namespace inferkit::kernels::INFERKIT_TIER
