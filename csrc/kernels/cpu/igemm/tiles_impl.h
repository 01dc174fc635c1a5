// Integer GEMM on the tiles of AMX; included by amx.cc. Operands are packed as for VNNI: 16 steps of 16 rows of A are a
// tile as they lie there, and so are 16 steps of a panel of B. Few rows are VNNI's, too: a tile of them takes as long
// as a full one. Integers have one answer, so it does not matter who computes it.
#pragma once
#include "kernels/cpu/igemm/sums_impl.h"
#include "kernels/cpu/tiles.h"

namespace inferkit::kernels::vnni {
extern const IgemmKernels kIgemm;
}

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

constexpr int64_t kStepsOfTile = kTileBytes / 4;
/// Below which VNNI is as fast.
constexpr int64_t kLeastRows = 5, kLeastSteps = 8;

/// Some rows of A, up to kMostRows, and what their tiles read: the last steps, where they fill no tile, in a copy that
/// zeros follow.
struct RowsOfA {
  const IgemmArgs& g;
  int64_t row, rows;
  int64_t tiles = steps_of(g.k) / kStepsOfTile, rest = steps_of(g.k) % kStepsOfTile;
  const char* a = static_cast<const char*>(g.a) + row * row_bytes(g.k);
  alignas(64) char last[kMostRows * kTileBytes] = {};

  RowsOfA(const IgemmArgs& args, int64_t first, int64_t count) : g(args), row(first), rows(count) {
    if (rest == 0) return;
    for (int64_t r = 0; r < rows; ++r) {
      memcpy(last + r * kTileBytes, a + r * row_bytes(g.k) + tiles * kTileBytes, static_cast<size_t>(4 * rest));
    }
  }
};

/// The last steps of a panel as a tile. What follows them there meets the zeros of A: the sums of the panel, and of the
/// next one less than it has, as that has the same steps, kLeastSteps or more. The last panel is copied, as nothing
/// that may be read follows it.
struct LastOfB {
  alignas(64) char copy[kTileRows * kTileBytes];
  const char* at;
  LastOfB(const RowsOfA& rows, const char* panel, bool is_last) : at(panel + rows.tiles * kStepsOfTile * 64) {
    if (!is_last || rows.rest == 0) return;
    memset(copy, 0, sizeof copy);
    memcpy(copy, at, static_cast<size_t>(64 * rows.rest));
    at = copy;
  }
};

/// Those rows, kRows tiles high, times panels [panel, panel + kPanels).
template <int kRows, int kPanels>
void tiles(const RowsOfA& x, int64_t panel) {
  const IgemmArgs& g = x.g;
  const int64_t a_stride = row_bytes(g.k), b_stride = panel_bytes(g.k);
  const char* b[kPanels];
  for (int p = 0; p < kPanels; ++p) b[p] = static_cast<const char*>(g.b) + (panel + p) * b_stride;
  zero_sums<kRows, kPanels>();
  for (int64_t t = 0; t < x.tiles; ++t) {
    load_a<kRows>(x.a + t * kTileBytes, a_stride, kTileRows * a_stride);
    add_tiles<BytesOfTiles, kRows>(b, t * kStepsOfTile * 64);
  }
  if (x.rest > 0) {
    load_a<kRows>(x.last, kTileBytes, kTileRows * kTileBytes);
    const bool has_last = (panel + kPanels) * kIgemmColumns >= g.n;
    const LastOfB last(x, b[kPanels - 1], has_last);
    for (int p = 0; p < kPanels; ++p) b[p] += x.tiles * kStepsOfTile * 64;
    b[kPanels - 1] = last.at;
    add_tiles<BytesOfTiles, kRows>(b, 0);
  }
  alignas(64) uint32_t sums[kRows * kTileRows * kPanels * kIgemmColumns];
  store_sums_of_tiles<kRows, kPanels>(sums);
  finish_tile(g, x.row, static_cast<int>(x.rows), panel, kPanels, sums);
}

/// Rows of 16 are wide, as there are registers for four panels; more go two by two.
INFERKIT_INLINE void rows_of_tiles(const RowsOfA& x, int64_t first, int64_t last) {
  if (x.rows > kTileRows) {
    for (; first + 2 <= last; first += 2) tiles<2, 2>(x, first);
    if (first < last) tiles<2, 1>(x, first);
    return;
  }
  for (; first + 4 <= last; first += 4) tiles<1, 4>(x, first);
  for (; first < last; ++first) tiles<1, 1>(x, first);
}

void gemm(const IgemmArgs& g) {
  if (g.m < kLeastRows || steps_of(g.k) < kLeastSteps) return vnni::kIgemm.gemm(g);
  const int64_t panels = (g.n + kIgemmColumns - 1) / kIgemmColumns;
  int64_t block = panels;
  if (g.m > kMostRows) {  // B comes by again: keep a block of it in L2
    const int64_t fit = kBlockBytes / panel_bytes(g.k) / 4 * 4;
    block = fit < 4 ? 4 : fit;
  }
  int64_t configured = 0;
  for (int64_t first = 0; first < panels; first += block) {
    const int64_t last = first + block < panels ? first + block : panels;
    for (int64_t row = 0; row < g.m; row += kMostRows) {
      const int64_t rows = g.m - row < kMostRows ? g.m - row : kMostRows;
      if (rows != configured) {
        configure_product(rows);
        configured = rows;
      }
      rows_of_tiles(RowsOfA(g, row, rows), first, last);
    }
  }
  release_tiles();
}

const char* igemm_isa() { return "avx512amx"; }
// By function: a table that is made of another one's would be made when the library is loaded, by instructions that the
// machine may lack.
void pack_a(const ByteMatrix& a, int64_t m, int64_t k, void* packed) { vnni::kIgemm.pack_a(a, m, k, packed); }
void pack_b(const ByteMatrix& b, int64_t k, int64_t n, void* packed) { vnni::kIgemm.pack_b(b, k, n, packed); }
void pack_image(const ImageArgs& args) { vnni::kIgemm.pack_image(args); }
void windows(const WindowArgs& args) { vnni::kIgemm.windows(args); }

}  // namespace

extern const IgemmKernels kIgemm;
const IgemmKernels kIgemm = {igemm_isa, kDepth, 700, pack_a, pack_b, gemm, pack_image, windows};

}  // namespace inferkit::kernels::INFERKIT_TIER
