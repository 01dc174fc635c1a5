// GEMM of bf16 on the tiles of AMX; included by amx.cc. B is packed as everywhere: 16 pairs of a panel are a tile as
// they lie there. The bits are the tiles' own (decision 074), for any number of rows: of each 32 neighbours of K the
// products of the even elements are summed, and those of the odd ones, each by FMA from zero; the two are added to each
// other and then to the sum. What is subnormal becomes zero. Sums begin anew every 512 elements, and are then added
// from the first to the last: that is as much of A as L1 holds for 32 rows. (Intel 64 and IA-32 Architectures Software
// Developer's Manual, volume 2, TDPBF16PS.)
#pragma once
#include "kernels/cpu/gemm_bf16/finish_impl.h"
#include "kernels/cpu/tiles.h"

namespace inferkit::kernels::bf16 {
extern const GemmBf16Kernels kGemmBf16;
}

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

constexpr int64_t kPairsOfTile = kTileBytes / 4, kPairsOfChunk = 256, kMostRows = 2 * kTileRows;
/// Bytes of B that the rows of A pass over before the next ones come.
constexpr int64_t kPairBlockBytes = 768 << 10;

/// Some rows of A in a chunk of K, as tiles read them: tile t of the first rows and, kTileRows * kTileBytes behind it,
/// of the others.
struct RowsOfA {
  int64_t pairs = 0;
  const uint32_t* direct = nullptr;  // pairs that lie there, `stride` from row to row; else all are in `tiles`
  int64_t stride = 0;
  alignas(64) uint32_t tiles[kPairsOfChunk / kPairsOfTile][kMostRows][kPairsOfTile];

  /// Rows [row, row + rows) from pair `first` on. What fills no tile is followed by zeros.
  void read(const GemmArgsBf16& g, int64_t row, int64_t rows, int64_t first, int64_t count) {
    pairs = count;
    const int64_t whole_tiles = pairs / kPairsOfTile, rest = pairs % kPairsOfTile;
    if (g.a_is_pairs) {
      direct = reinterpret_cast<const uint32_t*>(g.a) + row * g.lda + first;
      stride = g.lda;
      for (int64_t r = 0; rest > 0 && r < rows; ++r) {
        memset(tiles[whole_tiles][r], 0, kTileBytes);
        memcpy(tiles[whole_tiles][r], direct + r * stride + whole_tiles * kPairsOfTile, static_cast<size_t>(4 * rest));
      }
      return;
    }
    direct = nullptr;
    const int64_t length = g.k - 2 * first < 2 * pairs ? g.k - 2 * first : 2 * pairs;
    for (int64_t r = 0; r < rows; ++r) {
      const float* x = g.a + (row + r) * g.lda + 2 * first;
      int64_t i = 0, t = 0;
      for (; i + 32 <= length; i += 32, ++t) store_pairs(tiles[t][r], neighbours(load(x + i), load(x + i + 16)));
      if (i == length) continue;
      store_pairs(tiles[t][r], neighbours(load_some(x + i, length - i), load_some(x + i + 16, length - i - 16)));
    }
  }
};

/// The last pairs of a panel that fill no tile, and zeros: what follows them there may be infinite.
struct alignas(64) LastOfB {
  uint32_t pairs[kTileRows][kPairsOfTile];
  void copy(const char* from, int64_t rest) {
    memcpy(pairs, from, static_cast<size_t>(kTileBytes * rest));
    memset(pairs[rest], 0, static_cast<size_t>(kTileBytes * (kTileRows - rest)));
  }
};

/// Those rows, kRows tiles high, times panels [panel, panel + kPanels); `b` is where the chunk begins in panel 0.
template <int kRows, int kPanels>
void tiles(const PairTarget& g, const RowsOfA& x, int rows, const uint32_t* chunk, int64_t panel) {
  const char* b[kPanels];
  for (int p = 0; p < kPanels; ++p) b[p] = reinterpret_cast<const char*>(chunk + (panel + p) * g.b_panel_stride);
  const int64_t whole = x.pairs / kPairsOfTile, rest = x.pairs % kPairsOfTile;
  zero_sums<kRows, kPanels>();
  if (x.direct) {
    for (int64_t t = 0; t < whole; ++t) {
      load_a<kRows>(x.direct + t * kPairsOfTile, 4 * x.stride, 4 * x.stride * kTileRows);
      add_tiles<Bf16OfTiles, kRows>(b, t * kTileRows * kTileBytes);
    }
  } else {
    for (int64_t t = 0; t < whole; ++t) {
      load_a<kRows>(x.tiles[t], kTileBytes, kTileRows * kTileBytes);
      add_tiles<Bf16OfTiles, kRows>(b, t * kTileRows * kTileBytes);
    }
  }
  if (rest > 0) {
    LastOfB last[kPanels];
    const char* at[kPanels];
    for (int p = 0; p < kPanels; ++p) {
      last[p].copy(b[p] + whole * kTileRows * kTileBytes, rest);
      at[p] = reinterpret_cast<const char*>(last[p].pairs);
    }
    load_a<kRows>(x.tiles[whole], kTileBytes, kTileRows * kTileBytes);
    add_tiles<Bf16OfTiles, kRows>(at, 0);
  }
  alignas(64) float sums[kRows * kTileRows * kPanels * kPanelColumns];
  store_sums_of_tiles<kRows, kPanels>(sums);
  finish_pairs(g, g.first_row, rows, panel, kPanels, sums, g.resume);
}

void gemm(const GemmArgsBf16& args) {
  if (args.m <= 0 || args.n <= 0) return;
  if (args.k == 0) return bf16::kGemmBf16.gemm(args);
  PairTarget g{args};
  const int64_t pairs = (args.k + 1) / 2, panels = (g.n + kPanelColumns - 1) / kPanelColumns;
  const int64_t chunks = (pairs + kPairsOfChunk - 1) / kPairsOfChunk;
  // Sums wait in C between chunks; where that is the residual, those of a few panels wait here.
  constexpr int64_t kAsidePanels = 4;
  alignas(64) float aside[kMostRows * kAsidePanels * kPanelColumns];
  const bool waits_aside = chunks > 1 && g.residual == g.c;
  // Rows of A meet a block of B while that is in L2: all its chunks, one after the other, so that C is, too; or one
  // chunk, where so few panels would fit that turning A into pairs shows.
  constexpr int64_t kEnoughPanels = 16;
  const auto panels_of = [](int64_t depth) { return kPairBlockBytes / (depth * kTileBytes) / 4 * 4; };
  const bool all_chunks = waits_aside || panels_of(pairs) >= kEnoughPanels;
  int64_t block = panels;
  if (g.m > kMostRows) {
    const int64_t fit = panels_of(all_chunks ? pairs : kPairsOfChunk);
    block = fit < 4 ? 4 : fit;
  }
  if (waits_aside && block > kAsidePanels) block = kAsidePanels;
  RowsOfA x;
  int64_t configured = 0;
  for (int64_t first = 0; first < panels; first += block) {
    const int64_t last = first + block < panels ? first + block : panels;
    const auto run = [&](int64_t chunk, int64_t row) {
      const int64_t rows = g.m - row < kMostRows ? g.m - row : kMostRows;
      if (rows != configured) configure_product(configured = rows);
      const int64_t pair = chunk * kPairsOfChunk;
      g.first_row = row;
      g.first_panel = waits_aside ? first : 0;
      g.waiting = waits_aside ? aside : args.c + row * args.ldc;
      g.waiting_stride = waits_aside ? kAsidePanels * kPanelColumns : args.ldc;
      g.resume = chunk > 0;
      g.finish = chunk + 1 == chunks;
      x.read(args, row, rows, pair, pairs - pair < kPairsOfChunk ? pairs - pair : kPairsOfChunk);
      const uint32_t* b = args.b + pair * kPanelColumns;
      const int count = static_cast<int>(rows);
      int64_t panel = first;
      if (rows > kTileRows) {
        for (; panel + 2 <= last; panel += 2) tiles<2, 2>(g, x, count, b, panel);
        if (panel < last) tiles<2, 1>(g, x, count, b, panel);
      } else {
        for (; panel + 4 <= last; panel += 4) tiles<1, 4>(g, x, count, b, panel);
        for (; panel < last; ++panel) tiles<1, 1>(g, x, count, b, panel);
      }
      if (g.finish && g.act != Unary::kIdentity && g.act != Unary::kRelu) {
        activate_pairs(g, row, rows, first, last - first);
      }
    };
    if (all_chunks) {
      for (int64_t row = 0; row < g.m; row += kMostRows) {
        for (int64_t chunk = 0; chunk < chunks; ++chunk) run(chunk, row);
      }
    } else {
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        for (int64_t row = 0; row < g.m; row += kMostRows) run(chunk, row);
      }
    }
  }
  release_tiles();
}

const char* compiled_for() { return "avx512amx"; }
// By function, and not copied from the other table: see igemm/tiles_impl.h.
void pack_b(const float* b, int64_t ldb, int64_t k, int64_t n, uint32_t* packed) {
  bf16::kGemmBf16.pack_b(b, ldb, k, n, packed);
}
void pack_b_transposed(const float* b, int64_t ldb, int64_t k, int64_t n, uint32_t* packed) {
  bf16::kGemmBf16.pack_b_transposed(b, ldb, k, n, packed);
}
void pack_a(const float* a, int64_t lda, int64_t m, int64_t k, uint32_t* packed) {
  bf16::kGemmBf16.pack_a(a, lda, m, k, packed);
}
void pack_windows(const WindowPairsArgs& args) { bf16::kGemmBf16.pack_windows(args); }

}  // namespace

extern const GemmBf16Kernels kGemmBf16;
const GemmBf16Kernels kGemmBf16 = {compiled_for, 400, gemm, pack_b, pack_b_transposed, pack_a, pack_windows};

}  // namespace inferkit::kernels::INFERKIT_TIER
