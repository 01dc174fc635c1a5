// GEMM over windows of images, B read in place; part of gemm_impl.h.
#pragma once
#include "kernels/cpu/gemm/gemm.h"
#include "kernels/cpu/gemm/sums_impl.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

struct WindowsOfB {
  static constexpr bool kUnrolls = false;
  const float* base;
  const int32_t* offset;
  INFERKIT_MEMBER WindowsOfB from(int64_t k) const { return {base, offset + k}; }
  INFERKIT_MEMBER const float* next() { return base + *offset++; }
  INFERKIT_MEMBER const float* panel(const float* row, int p) const { return row + p * kPanelColumns; }
};

/// Lanes [lane, lane + count) of a panel that are neighbours in a row of C, which lane 0 would be at `at`.
struct Piece {
  int64_t lane, count, at;
};

/// Where a panel begins in the grid.
struct Place {
  int64_t n, row, column;
};

INFERKIT_INLINE Place place_of(const WindowGemmArgs& g, int64_t n) {
  const auto at = static_cast<uint32_t>(n), pitch = static_cast<uint32_t>(g.pitch);  // a shorter division
  return {n, at / pitch, at % pitch};
}

/// The pieces of the panel at `place`, which moves behind it; the columns past `width` are dropped.
INFERKIT_INLINE int pieces_of(const WindowGemmArgs& g, Place& place, Piece (&pieces)[kLanes]) {
  int count = 0;
  const int64_t lanes = g.n - place.n < kLanes ? g.n - place.n : kLanes;
  for (int64_t lane = 0; lane < lanes;) {
    const int64_t span = g.pitch - place.column < lanes - lane ? g.pitch - place.column : lanes - lane;
    const int64_t wanted = g.width - place.column;
    if (wanted > 0) pieces[count++] = {lane, wanted < span ? wanted : span, place.row * g.width + place.column - lane};
    lane += span;
    place.column += span;
    if (place.column < g.pitch) continue;
    place.column = 0;
    ++place.row;
  }
  place.n += kLanes;
  return count;
}

INFERKIT_INLINE void store_piece(float* c, F32x16 v, const Piece& piece) {
#if defined(__AVX512F__)
  const uint32_t mask = ((1u << piece.count) - 1) << piece.lane;
  _mm512_mask_storeu_ps(c + piece.at, static_cast<__mmask16>(mask), (__m512)v.p[0]);
#else
  if (piece.count == kLanes) return store(c + piece.at, v);
  if (piece.lane == 0) return store_partial(c + piece.at, v, piece.count);
  float lanes[kLanes];
  store(lanes, v);
  for (int64_t i = piece.lane; i < piece.lane + piece.count; ++i) c[piece.at + i] = lanes[i];
#endif
}

template <int kRows, int kPanels>
struct WindowTile {
  static void run(const WindowGemmArgs& g, int64_t row, int64_t panel) {
    F32x16 acc[kRows][kPanels];
    add_product(acc, g.a + row * g.lda, g.lda, WindowsOfB{g.b + panel * kPanelColumns, g.offsets}, g.k, g.k_chunk,
                Before<F32x16>{});
    _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
      const F32x16 bias = broadcast(g.bias ? g.bias[row + r] : 0.0f);
      _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) {
        if (g.bias) acc[r][p] = acc[r][p] + bias;
        if (g.rectify) acc[r][p] = max(broadcast(0.0f), acc[r][p]);
      }
    }
    Place place = place_of(g, panel * kPanelColumns);
    _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) {
      Piece pieces[kLanes];
      const int count = pieces_of(g, place, pieces);
      for (int i = 0; i < count; ++i) {
        float* c = g.c + row * g.ldc;
        _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r, c += g.ldc) store_piece(c, acc[r][p], pieces[i]);
      }
    }
  }
};

void gemm_windows(const WindowGemmArgs& g) {
  if (g.m <= 0 || g.n <= 0) return;
  const int64_t panels = ceil_div(g.n, kPanelColumns), row_tiles = ceil_div(g.m, kMaxRows);
  for (int64_t t = 0; t < row_tiles; ++t) {
    const int64_t row = part_start(g.m, row_tiles, t), rows = part_start(g.m, row_tiles, t + 1) - row;
    row_of_tiles<WindowGemmArgs, WindowTile>(g, row, rows, 0, panels);
  }
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
