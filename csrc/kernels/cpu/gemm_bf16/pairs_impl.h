// Floats as pairs of bf16; part of gemm_bf16_impl.h. A pair is 32 bits: the even element of K in the low half.
#pragma once
#include "kernels/cpu/gemm_bf16/gemm_bf16.h"
#include "kernels/cpu/transpose_inl.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

typedef NativeBits UnalignedBits __attribute__((aligned(4), may_alias));
struct U32x16 {
  NativeBits p[kParts];
};
INFERKIT_INLINE U32x16 load_pairs(const uint32_t* x) {
  U32x16 r;
  INFERKIT_EACH_PART r.p[i] = (NativeBits) * (const UnalignedBits*)(x + i * kNativeLanes);
  return r;
}
INFERKIT_INLINE void store_pairs(uint32_t* y, U32x16 v) {
  INFERKIT_EACH_PART*(UnalignedBits*)(y + i * kNativeLanes) = (UnalignedBits)v.p[i];
}

/// Rounded to bf16, in the upper half of each lane; the lower is zero.
INFERKIT_INLINE U32x16 rounded(F32x16 v) {
  U32x16 r;
  INFERKIT_EACH_PART {
    const NativeBits x = (NativeBits)v.p[i], size = x & 0x7fffffffu;
    const NativeBits nearest = x + 0x7fffu + (x >> 16 & 1u);
    const NativeBits number = size < 0x00800000u ? (x & 0x80000000u) : nearest;
    r.p[i] = (size > 0x7f800000u ? (x | 0x00400000u) : number) & 0xffff0000u;
  }
  return r;
}

/// Lane j is the pair of even[j] and odd[j].
INFERKIT_INLINE U32x16 paired(F32x16 even, F32x16 odd) {
#if defined(__AVX512BF16__)
  typedef uint16_t U16x32 __attribute__((vector_size(64)));
  const auto both = (U16x32)_mm512_cvtne2ps_pbh(odd.p[0], even.p[0]);
  return {
      {(NativeBits)__builtin_shufflevector(both, both, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8,  //
                                           24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)}};
#else
  const U32x16 low = rounded(even), high = rounded(odd);
  U32x16 r;
  INFERKIT_EACH_PART r.p[i] = low.p[i] >> 16 | high.p[i];
  return r;
#endif
}

/// The pairs of 32 neighbours.
INFERKIT_INLINE U32x16 neighbours(F32x16 first, F32x16 second) {
#if defined(__AVX512BF16__)
  return {{(NativeBits)_mm512_cvtne2ps_pbh(second.p[0], first.p[0])}};
#else
  return paired(evens(first, second), odds(first, second));
#endif
}

INFERKIT_INLINE F32x16 load_some(const float* x, int64_t n) {
  return n >= kLanes ? load(x) : n > 0 ? load_partial(x, n) : broadcast(0.0f);
}

/// The (n + 1) / 2 pairs of n neighbours.
INFERKIT_INLINE void pair_row(const float* x, int64_t n, uint32_t* y) {
  int64_t i = 0;
  for (; i + 32 <= n; i += 32, y += 16) store_pairs(y, neighbours(load(x + i), load(x + i + 16)));
  if (i == n) return;
  alignas(64) uint32_t last[16];
  store_pairs(last, neighbours(load_some(x + i, n - i), load_some(x + i + 16, n - i - 16)));
  for (int64_t j = 0; j < (n - i + 1) / 2; ++j) y[j] = last[j];
}

[[maybe_unused]] void pack_b_pairs(const float* b, int64_t ldb, int64_t k, int64_t n, uint32_t* packed) {
  for (int64_t column = 0; column < n; column += kPanelColumns) {
    const int64_t columns = n - column;
    const float* from = b + column;
    int64_t i = 0;
    for (; i + 2 <= k; i += 2, packed += kPanelColumns) {
      store_pairs(packed, paired(load_some(from + i * ldb, columns), load_some(from + (i + 1) * ldb, columns)));
    }
    if (i == k) continue;
    store_pairs(packed, paired(load_some(from + i * ldb, columns), broadcast(0.0f)));
    packed += kPanelColumns;
  }
}

[[maybe_unused]] void pack_b_pairs_transposed(const float* b, int64_t ldb, int64_t k, int64_t n, uint32_t* packed) {
  constexpr int64_t kAtOnce = 2 * kLanes;  // elements of K
  alignas(64) uint32_t rows[kPanelColumns][kLanes] = {};
  for (int64_t column = 0; column < n; column += kPanelColumns) {
    const int64_t columns = n - column < kPanelColumns ? n - column : kPanelColumns;
    if (columns < kPanelColumns) memset(rows, 0, sizeof rows);
    for (int64_t i = 0; i < k; i += kAtOnce) {
      const int64_t length = k - i < kAtOnce ? k - i : kAtOnce, pairs = (length + 1) / 2;
      for (int64_t j = 0; j < columns; ++j) pair_row(b + (column + j) * ldb + i, length, rows[j]);
      if (pairs == kLanes) {
        for (int64_t row = 0; row < kPanelColumns; row += 4) {
          for (int64_t q = 0; q < kLanes; q += 4) {
            transpose_4x4((const float*)&rows[row][q], kLanes, (float*)packed + q * kPanelColumns + row, kPanelColumns);
          }
        }
      } else {
        for (int64_t q = 0; q < pairs; ++q) {
          for (int64_t j = 0; j < kPanelColumns; ++j) packed[q * kPanelColumns + j] = rows[j][q];
        }
      }
      packed += pairs * kPanelColumns;
    }
  }
}

[[maybe_unused]] void pack_a_pairs(const float* a, int64_t lda, int64_t m, int64_t k, uint32_t* packed) {
  for (int64_t row = 0; row < m; ++row, packed += (k + 1) / 2) pair_row(a + row * lda, k, packed);
}

/// Lanes [lane, lane + count) of a panel are neighbours in the image; lane 0 would lie at `at`.
struct Piece {
  int64_t lane, count, at;
};

INFERKIT_INLINE F32x16 load_pieces(const float* tap, const Piece* pieces, int count) {
#if defined(__AVX512F__)
  F32x16 v = broadcast(0.0f);
  for (int i = 0; i < count; ++i) {
    const auto mask = static_cast<__mmask16>(((1u << pieces[i].count) - 1) << pieces[i].lane);
    v.p[0] = (Native)_mm512_mask_loadu_ps((__m512)v.p[0], mask, tap + pieces[i].at);
  }
  return v;
#else
  float lanes[kLanes] = {};
  for (int i = 0; i < count; ++i) {
    const Piece& piece = pieces[i];
    for (int64_t j = piece.lane; j < piece.lane + piece.count; ++j) lanes[j] = tap[piece.at + j];
  }
  return load(lanes);
#endif
}

/// A panel whose elements load(tap) gives.
template <class Load>
INFERKIT_INLINE void pack_panel_of_windows(const WindowPairsArgs& g, uint32_t* to, const Load& taps) {
  int64_t i = 0;
  for (; i + 2 <= g.k; i += 2, to += kPanelColumns) {
    store_pairs(to, paired(taps(g.image + g.offsets[i]), taps(g.image + g.offsets[i + 1])));
  }
  if (i < g.k) store_pairs(to, paired(taps(g.image + g.offsets[i]), broadcast(0.0f)));
}

[[maybe_unused]] void pack_window_pairs(const WindowPairsArgs& g) {
  uint32_t* to = g.packed;
  int64_t row = 0, column = 0;
  for (int64_t n = 0; n < g.pixels; n += kPanelColumns, to += (g.k + 1) / 2 * kPanelColumns) {
    Piece pieces[kPanelColumns];
    int count = 0;
    const int64_t lanes = g.pixels - n < kPanelColumns ? g.pixels - n : kPanelColumns;
    for (int64_t lane = 0; lane < lanes;) {
      const int64_t left = g.width - column, span = left < lanes - lane ? left : lanes - lane;
      pieces[count++] = {lane, span, row * g.pitch + column - lane};
      lane += span;
      column += span;
      if (column < g.width) continue;
      column = 0;
      ++row;
    }
    if (count == 1 && lanes == kPanelColumns) {
      pack_panel_of_windows(g, to, [&](const float* tap) INFERKIT_LAMBDA { return load(tap + pieces[0].at); });
    } else if (count == 2) {
      pack_panel_of_windows(g, to, [&](const float* tap) INFERKIT_LAMBDA { return load_pieces(tap, pieces, 2); });
    } else if (count == 3) {
      pack_panel_of_windows(g, to, [&](const float* tap) INFERKIT_LAMBDA { return load_pieces(tap, pieces, 3); });
    } else {
      pack_panel_of_windows(g, to, [&](const float* tap) INFERKIT_LAMBDA { return load_pieces(tap, pieces, count); });
    }
  }
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
