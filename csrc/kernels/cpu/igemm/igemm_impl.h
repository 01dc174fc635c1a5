// Integer GEMM of one tier; included by <tier>.cc.
#pragma once
#include "kernels/cpu/igemm/sums_impl.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

#if defined(__AVX512F__)
constexpr int kMaxSums = 24;
constexpr int kMaxRows = 12;
#else
constexpr int kMaxSums = 6;
constexpr int kMaxRows = 6;
#endif
/// Panels of the widest tile of so many rows, a power of two.
constexpr int widest(int rows) {
  const int fit = kMaxSums / rows;
  return fit >= 8 ? 8 : fit >= 4 ? 4 : fit >= 2 ? 2 : 1;
}

// ---- Packing --------------------------------------------------------------------------------------------------------

/// A byte as it is packed.
INFERKIT_INLINE Packed packed_value(uint8_t byte, bool is_signed, bool shifts) {
  if constexpr (kDepth == 4) return static_cast<Packed>(byte ^ (shifts ? 0x80 : 0));
  return static_cast<Packed>(is_signed ? static_cast<int16_t>(static_cast<int8_t>(byte)) : int16_t{byte});
}

/// Rows of `steps` steps, zeros past k, and behind them the row's sum.
template <bool kSigned>
void pack_rows(const ByteMatrix& a, int64_t m, int64_t k, char* to) {
  constexpr bool kShifts = kShiftUnsignedA && !kSigned;
  const int64_t stride = row_bytes(k), padded = steps_of(k) * kDepth;
  for (int64_t r = 0; r < m; ++r, to += stride) {
    const uint8_t* from = static_cast<const uint8_t*>(a.data) + r * a.row_stride;
    Packed* row = (Packed*)to;
    uint32_t sum = 0;
    const auto value_of = [](Packed v) {
      return static_cast<uint32_t>(kDepth == 4 ? int32_t{static_cast<int8_t>(v)} : int32_t{static_cast<int16_t>(v)});
    };
    if (a.column_stride == 1) {
      for (int64_t i = 0; i < k; ++i) row[i] = packed_value(from[i], kSigned, kShifts);
    } else {
      for (int64_t i = 0; i < k; ++i) row[i] = packed_value(from[i * a.column_stride], kSigned, kShifts);
    }
    for (int64_t i = 0; i < k; ++i) sum += value_of(row[i]);
    for (int64_t i = k; i < padded; ++i) row[i] = 0;
    memcpy(to + stride - 4, &sum, 4);
  }
}

void pack_a(const ByteMatrix& a, int64_t m, int64_t k, void* packed) {
  a.is_signed ? pack_rows<true>(a, m, k, static_cast<char*>(packed))
              : pack_rows<false>(a, m, k, static_cast<char*>(packed));
}

typedef uint8_t Bytes16 __attribute__((vector_size(16)));
typedef uint8_t UnalignedBytes16 __attribute__((vector_size(16), aligned(1), may_alias));

INFERKIT_INLINE Bytes16 low_pairs(Bytes16 a, Bytes16 b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
INFERKIT_INLINE Bytes16 high_pairs(Bytes16 a, Bytes16 b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
typedef uint16_t Words8 __attribute__((vector_size(16)));
INFERKIT_INLINE Bytes16 low_word_pairs(Bytes16 a, Bytes16 b) {
  return (Bytes16)__builtin_shufflevector((Words8)a, (Words8)b, 0, 8, 1, 9, 2, 10, 3, 11);
}
INFERKIT_INLINE Bytes16 high_word_pairs(Bytes16 a, Bytes16 b) {
  return (Bytes16)__builtin_shufflevector((Words8)a, (Words8)b, 4, 12, 5, 13, 6, 14, 7, 15);
}

/// One step of a panel from kDepth rows of 16 bytes.
template <bool kSigned>
INFERKIT_INLINE void interleave(const Bytes16 (&row)[kDepth], char* to) {
  auto* out = (UnalignedBytes16*)to;
  const Bytes16 low = low_pairs(row[0], row[1]), high = high_pairs(row[0], row[1]);
#if defined(__AVX512VNNI__)
  const Bytes16 low2 = low_pairs(row[2], row[3]), high2 = high_pairs(row[2], row[3]);
  out[0] = low_word_pairs(low, low2);
  out[1] = high_word_pairs(low, low2);
  out[2] = low_word_pairs(high, high2);
  out[3] = high_word_pairs(high, high2);
#else
  // Widened: a byte becomes the low half of a word, below zero or its sign.
  const auto sign = [](Bytes16 v) {
    typedef int8_t Signed16 __attribute__((vector_size(16)));
    return kSigned ? (Bytes16)((Signed16)v < 0) : Bytes16{};
  };
  const Bytes16 low_sign = sign(low), high_sign = sign(high);
  out[0] = low_pairs(low, low_sign);
  out[1] = high_pairs(low, low_sign);
  out[2] = low_pairs(high, high_sign);
  out[3] = high_pairs(high, high_sign);
#endif
}

template <bool kSigned>
void pack_panels(const ByteMatrix& b, int64_t k, int64_t n, char* to) {
  constexpr uint8_t kFlip = kShiftSignedB && kSigned ? 0x80 : 0;
  const int64_t steps = steps_of(k);
  for (int64_t column = 0; column < n; column += kIgemmColumns) {
    const int64_t columns = n - column < kIgemmColumns ? n - column : kIgemmColumns;
    const uint8_t* from = static_cast<const uint8_t*>(b.data) + column * b.column_stride;
    for (int64_t s = 0; s < steps; ++s) {
      Bytes16 row[kDepth];
      _Pragma("GCC unroll 4") for (int d = 0; d < kDepth; ++d) {
        const int64_t i = s * kDepth + d;
        const uint8_t* at = from + i * b.row_stride;
        if (i >= k) {
          row[d] = Bytes16{};
        } else if (columns == kIgemmColumns && b.column_stride == 1) {
          row[d] = (Bytes16)(*(const UnalignedBytes16*)at) ^ kFlip;
        } else {
          uint8_t lanes[kIgemmColumns] = {};
          for (int64_t j = 0; j < columns; ++j) lanes[j] = at[j * b.column_stride] ^ kFlip;
          memcpy(&row[d], lanes, sizeof lanes);
        }
      }
      interleave<kSigned>(row, to + s * 64);
    }
    Sums sums{};  // in a pass of its own: a load of what narrower stores have just written stalls
    for (int64_t s = 0; s < steps; ++s) sums = add_products(sums, kOnes, load_sums(to + s * 64));
    store_sums(to + steps * 64, sums);
    to += (steps + 1) * 64;
  }
}

void pack_b(const ByteMatrix& b, int64_t k, int64_t n, void* packed) {
  b.is_signed ? pack_panels<true>(b, k, n, static_cast<char*>(packed))
              : pack_panels<false>(b, k, n, static_cast<char*>(packed));
}

// ---- Multiplying ----------------------------------------------------------------------------------------------------

/// Sums of a tile, rows first, as they leave its registers. What is done with them is compiled once, not for each size.
template <int kRows, int kPanels>
struct alignas(64) SumsOfTile {
  uint32_t at[kRows][kPanels][kIgemmColumns];
  INFERKIT_MEMBER explicit SumsOfTile(const Sums (&acc)[kRows][kPanels]) {
    _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
      _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) store_sums(at[r][p], acc[r][p]);
    }
  }
};

/// C[row .. row + kRows) x panels [panel .. panel + kPanels).
template <int kRows, int kPanels>
void tile(const IgemmArgs& g, int64_t row, int64_t panel) {
  const int64_t steps = steps_of(g.k), a_stride = row_bytes(g.k), b_stride = panel_bytes(g.k);
  const char* a = static_cast<const char*>(g.a) + row * a_stride;
  const char* b = static_cast<const char*>(g.b) + panel * b_stride;
  Sums acc[kRows][kPanels] = {};
  // Rows in groups of three: x86 addresses base, base + stride and base + 2 stride without another register.
  constexpr int kGroups = (kRows + 2) / 3;
  const char* group[kGroups];
  for (int i = 0; i < kGroups; ++i) group[i] = a + 3 * i * a_stride;
  for (int64_t s = 0; s < steps; ++s) {
    Sums bv[kPanels];
    _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) bv[p] = load_sums(b + p * b_stride + s * 64);
    _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
      const int32_t av = load_int(group[r / 3] + (r % 3) * a_stride + s * 4);
      _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) acc[r][p] = add_products(acc[r][p], av, bv[p]);
    }
  }
  SumsOfTile sums(acc);
  finish_tile(g, row, kRows, panel, kPanels, sums.at[0][0]);
}

using TileFn = void (*)(const IgemmArgs& g, int64_t row, int64_t panel);
template <int kRows, int kPanels>
constexpr TileFn tile_or_null() {
  if constexpr (kRows <= kMaxRows && kPanels <= widest(kRows)) return tile<kRows, kPanels>;
  return nullptr;
}
/// By rows, and by the logarithm of the panels.
struct TileRow {
  TileFn of_panels[4];
};
template <int kRows>
constexpr TileRow tile_row() {
  return {{tile_or_null<kRows, 1>(), tile_or_null<kRows, 2>(), tile_or_null<kRows, 4>(), tile_or_null<kRows, 8>()}};
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

/// Rows [row, row + rows) of panels [first, last).
INFERKIT_INLINE void row_of_tiles(const IgemmArgs& g, int64_t row, int64_t rows, int64_t first, int64_t last) {
  const TileRow& tiles = kTiles[rows];
  for (int log = 3; log >= 0; --log) {
    const int64_t width = int64_t{1} << log;
    if (!tiles.of_panels[log]) continue;
    for (; first + width <= last; first += width) tiles.of_panels[log](g, row, first);
  }
}

void gemm(const IgemmArgs& g) {
  if (g.m <= 0 || g.n <= 0) return;
  const int64_t panels = (g.n + kIgemmColumns - 1) / kIgemmColumns, row_tiles = (g.m + kMaxRows - 1) / kMaxRows;
  int64_t block = panels;
  if (row_tiles > 1) {  // B comes by again: keep a block of it in L2
    const int64_t fit = kBlockBytes / panel_bytes(g.k) / 8 * 8;
    block = fit < 8 ? 8 : fit;
  }
  for (int64_t first = 0; first < panels; first += block) {
    const int64_t last = first + block < panels ? first + block : panels;
    for (int64_t t = 0; t < row_tiles; ++t) {  // nearly equal parts: 13 rows are 7 + 6, never 12 + 1
      const int64_t row = g.m * t / row_tiles, rows = g.m * (t + 1) / row_tiles - row;
      row_of_tiles(g, row, rows, first, last);
    }
  }
}

#if defined(__AVX512VNNI__)
const char* igemm_isa() { return "avx512vnni"; }
constexpr double kProductsPerNano = 300;
#else
const char* igemm_isa() { return compiled_isa(); }
#if defined(__AVX512F__)
constexpr double kProductsPerNano = 100;
#elif defined(__AVX2__)
constexpr double kProductsPerNano = 75;
#else
constexpr double kProductsPerNano = 35;
#endif
#endif

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER

#include "kernels/cpu/igemm/windows_impl.h"

namespace inferkit::kernels::INFERKIT_TIER {

extern const IgemmKernels kIgemm;
const IgemmKernels kIgemm = {igemm_isa, kDepth, kProductsPerNano, pack_a, pack_b, gemm, pack_image, windows};

}  // namespace inferkit::kernels::INFERKIT_TIER
