// Convolutions of bytes at stride 1 that read their windows where they lie; part of igemm_impl.h. The image is packed
// once, with its padding: for each pixel the 4 bytes of as many neighbours in channels as a step multiplies. A step of
// sixteen neighbouring outputs is then 64 bytes of it, wherever the tap is.
#pragma once

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

/// Rows of the image, all with the same padding.
template <bool kSigned>
void pack_rows_of_image(const ImageArgs& g) {
  constexpr uint8_t kFlip = kShiftSignedB && kSigned ? 0x80 : 0;
  const int64_t groups = (g.channels + kDepth - 1) / kDepth;
  auto* const lines = static_cast<uint8_t*>(g.room);
  char* to = static_cast<char*>(g.to);
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t r = 0; r < g.rows; ++r) {
      const int64_t row = g.first + r;
      for (int64_t d = 0; d < kDepth; ++d) {
        const int64_t channel = group * kDepth + d;
        uint8_t* line = lines + d * g.pitch;
        memset(line, g.zero, static_cast<size_t>(g.pitch));
        if (row < 0 || row >= g.height || channel >= g.channels) continue;
        const auto* from = static_cast<const uint8_t*>(g.x) + (channel * g.height + row) * g.width;
        memcpy(line + g.pad, from, static_cast<size_t>(g.width));
      }
      for (int64_t column = 0; column < g.pitch; column += kIgemmColumns, to += 64) {
        Bytes16 some[kDepth];
        _Pragma("GCC unroll 4") for (int d = 0; d < kDepth; ++d) {
          some[d] = (Bytes16)(*(const UnalignedBytes16*)(lines + d * g.pitch + column)) ^ kFlip;
        }
        interleave<kSigned>(some, to);
      }
    }
  }
}

void pack_image(const ImageArgs& g) { g.is_signed ? pack_rows_of_image<true>(g) : pack_rows_of_image<false>(g); }

/// Sixteen neighbouring outputs are a unit; those of all rows are counted through.
INFERKIT_INLINE int64_t units_of_row(const WindowArgs& g) { return (g.width + kIgemmColumns - 1) / kIgemmColumns; }

/// What a tile of filters and units has summed, into C: sum a (b - bz) = sum ab - bz sum a.
[[gnu::noinline]] void finish_windows(const WindowArgs& g, int64_t filter, int rows, int64_t unit, int units,
                                      const uint32_t* sums) {
  const int64_t a_stride = (g.steps + 1) * 4, in_row = units_of_row(g);
  const char* a_sums = static_cast<const char*>(g.a) + filter * a_stride + g.steps * 4;
  const auto zero = static_cast<uint32_t>(g.zero + (kShiftSignedB && g.is_signed ? 128 : 0));
  for (int u = 0; u < units; ++u) {
    const int64_t row = (unit + u) / in_row, column = (unit + u) % in_row * kIgemmColumns;
    const int64_t columns = g.width - column < kIgemmColumns ? g.width - column : kIgemmColumns;
    int32_t* c = g.c + filter * g.plane + row * g.width + column;
    for (int r = 0; r < rows; ++r) {
      const uint32_t moved = zero * static_cast<uint32_t>(load_int(a_sums + r * a_stride));
      Sums v = load_sums(sums + (r * units + u) * kIgemmColumns);
      INFERKIT_EACH_PART v.p[i] -= moved;
      store_some_sums(c + r * g.plane, v, columns);
    }
  }
}

/// Filters [filter, filter + kRows) of units [unit, unit + kUnits).
template <int kRows, int kUnits>
void window_tile(const WindowArgs& g, int64_t filter, int64_t unit) {
  const int64_t a_stride = (g.steps + 1) * 4, in_row = units_of_row(g);
  const char* a = static_cast<const char*>(g.a) + filter * a_stride;
  const char* at[kUnits];
  for (int u = 0; u < kUnits; ++u) {
    at[u] = static_cast<const char*>(g.image) + (unit + u) / in_row * g.row_bytes + (unit + u) % in_row * 64;
  }
  Sums acc[kRows][kUnits] = {};
  constexpr int kGroups = (kRows + 2) / 3;  // as in tile
  const char* group[kGroups];
  for (int i = 0; i < kGroups; ++i) group[i] = a + 3 * i * a_stride;
  for (int64_t s = 0; s < g.steps; ++s) {
    const int64_t offset = g.offsets[s];
    Sums bv[kUnits];
    _Pragma("GCC unroll 4") for (int u = 0; u < kUnits; ++u) bv[u] = load_sums(at[u] + offset);
    _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
      const int32_t av = load_int(group[r / 3] + (r % 3) * a_stride + s * 4);
      _Pragma("GCC unroll 4") for (int u = 0; u < kUnits; ++u) acc[r][u] = add_products(acc[r][u], av, bv[u]);
    }
  }
  const SumsOfTile sums(acc);
  finish_windows(g, filter, kRows, unit, kUnits, sums.at[0][0]);
}

using WindowFn = void (*)(const WindowArgs& g, int64_t filter, int64_t unit);
template <int kRows, int kUnits>
constexpr WindowFn window_or_null() {
  if constexpr (kRows <= kMaxRows && kUnits <= widest(kRows)) return window_tile<kRows, kUnits>;
  return nullptr;
}
struct WindowRow {
  WindowFn of_units[3];  // by their logarithm
};
template <int kRows>
constexpr WindowRow window_row() {
  return {{window_or_null<kRows, 1>(), window_or_null<kRows, 2>(), window_or_null<kRows, 4>()}};
}
constexpr WindowRow kWindowTiles[] = {{},
                                      window_row<1>(),
                                      window_row<2>(),
                                      window_row<3>(),
                                      window_row<4>(),
                                      window_row<5>(),
                                      window_row<6>(),
                                      window_row<7>(),
                                      window_row<8>(),
                                      window_row<9>(),
                                      window_row<10>(),
                                      window_row<11>(),
                                      window_row<12>()};

void windows(const WindowArgs& g) {
  if (g.filters <= 0 || g.rows <= 0 || g.width <= 0) return;
  const int64_t in_row = units_of_row(g), tiles = (g.filters + kMaxRows - 1) / kMaxRows;
  // So many rows that what they read stays in a small cache while the filters pass over it.
  int64_t block = (kBlockBytes / 32) / (g.row_bytes > 0 ? g.row_bytes : 1);
  block = block < 1 ? 1 : block;
  for (int64_t row = 0; row < g.rows; row += block) {
    const int64_t last = (g.rows - row < block ? g.rows : row + block) * in_row;
    for (int64_t t = 0; t < tiles; ++t) {  // nearly equal parts
      const int64_t filter = g.filters * t / tiles, filters = g.filters * (t + 1) / tiles - filter;
      const WindowRow& of = kWindowTiles[filters];
      int64_t unit = row * in_row;
      for (int log = 2; log >= 0; --log) {
        const int64_t count = int64_t{1} << log;
        if (!of.of_units[log]) continue;
        for (; unit + count <= last; unit += count) of.of_units[log](g, filter, unit);
      }
    }
  }
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
