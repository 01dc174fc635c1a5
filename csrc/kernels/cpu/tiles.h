// The tiles of AMX: eight registers of up to 16 rows of 64 bytes. In assembly, since the compilers' own functions do
// not say that they read memory. Used by files that are compiled for them alone, in a process that may
// (may_use_tiles()).
#pragma once
#include "kernels/cpu/simd.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

constexpr int64_t kTileRows = 16, kTileBytes = 64;

// A thread that has configured its tiles gives them back with release_tiles(), so that nobody saves them when threads
// take turns. Not by a destructor: that would give these files tables for exceptions, which kernels throw none of, and
// a symbol that the linker shares with code for any processor.

/// Tile i has rows[i] rows of kTileBytes.
INFERKIT_INLINE void configure_tiles(const uint8_t (&rows)[8]) {
  alignas(64) uint8_t shapes[64] = {};  // palette 1; at 16 the bytes of a row as words, at 48 the rows
  shapes[0] = 1;
  for (int i = 0; i < 8; ++i) {
    shapes[16 + 2 * i] = kTileBytes;
    shapes[48 + i] = rows[i];
  }
  asm volatile("ldtilecfg %0" ::"m"(shapes) : "memory");
}
INFERKIT_INLINE void release_tiles() { asm volatile("tilerelease" ::: "memory"); }

/// Row r is at `from` + r * stride.
template <int kTile>
INFERKIT_INLINE void load_tile(const void* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
INFERKIT_INLINE void store_tile(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
INFERKIT_INLINE void zero_tile() {
  asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
}

/// kTo += A B, of each row of A and column of B the products of 64 int8 and uint8, as int32, which wraps.
struct BytesOfTiles {
  template <int kTo, int kA, int kB>
  static INFERKIT_MEMBER void add() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kTo), "i"(kA), "i"(kB));
  }
};
/// The same of 32 bf16 each, as float: see gemm_bf16/tiles_impl.h.
struct Bf16OfTiles {
  template <int kTo, int kA, int kB>
  static INFERKIT_MEMBER void add() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kTo), "i"(kA), "i"(kB));
  }
};

// A product holds 2 x 2 or 1 x 4 tiles of sums, or fewer: kRows tiles high, kPanels wide. They are tiles 0 to 3, those
// of A 4 and 5, and those of B begin behind them.

/// For `rows` rows, up to 2 * kTileRows: one tile high, or two.
INFERKIT_INLINE void configure_product(int64_t rows) {
  const auto above = static_cast<uint8_t>(rows < kTileRows ? rows : kTileRows);
  const auto below = static_cast<uint8_t>(rows - above);
  if (below > 0) {
    configure_tiles({above, above, below, below, above, below, kTileRows, kTileRows});
  } else {
    configure_tiles({above, above, above, above, above, kTileRows, kTileRows, kTileRows});
  }
}
template <int kRows>
constexpr int sum_tile(int row, int panel) {
  return kRows == 2 ? 2 * row + panel : panel;
}
template <int kRows, int kPanels, int kPanel = 0>
INFERKIT_INLINE void zero_sums() {
  if constexpr (kPanel < kPanels) {
    zero_tile<sum_tile<kRows>(0, kPanel)>();
    if constexpr (kRows == 2) zero_tile<sum_tile<kRows>(1, kPanel)>();
    zero_sums<kRows, kPanels, kPanel + 1>();
  }
}
/// The tiles of A: the second one is `below` bytes behind the first.
template <int kRows>
INFERKIT_INLINE void load_a(const void* a, int64_t stride, int64_t below) {
  load_tile<4>(a, stride);
  if constexpr (kRows == 2) load_tile<5>(static_cast<const char*>(a) + below, stride);
}
/// Adds their products with the tiles of B, whose rows follow each other.
template <class Kind, int kRows, int kPanels, int kPanel = 0>
INFERKIT_INLINE void add_tiles(const char* const (&b)[kPanels], int64_t offset) {
  if constexpr (kPanel < kPanels) {
    constexpr int kB = kRows == 2 ? 6 + kPanel : 5 + kPanel % 3;
    load_tile<kB>(b[kPanel] + offset, kTileBytes);
    Kind::template add<sum_tile<kRows>(0, kPanel), 4, kB>();
    if constexpr (kRows == 2) Kind::template add<sum_tile<kRows>(1, kPanel), 5, kB>();
    add_tiles<Kind, kRows, kPanels, kPanel + 1>(b, offset);
  }
}
/// The sums, rows first: kPanels * 16 of each row.
template <int kRows, int kPanels, int kPanel = 0>
INFERKIT_INLINE void store_sums_of_tiles(void* to) {
  if constexpr (kPanel < kPanels) {
    char* const at = static_cast<char*>(to) + kPanel * kTileBytes;
    store_tile<sum_tile<kRows>(0, kPanel)>(at, kPanels * kTileBytes);
    if constexpr (kRows == 2) {
      store_tile<sum_tile<kRows>(1, kPanel)>(at + kTileRows * kPanels * kTileBytes, kPanels * kTileBytes);
    }
    store_sums_of_tiles<kRows, kPanels, kPanel + 1>(to);
  }
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
