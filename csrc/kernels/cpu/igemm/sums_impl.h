// What the sums of an integer GEMM are made of and what becomes of them; part of igemm_impl.h and tiles_impl.h. A step
// multiplies the 4 bytes of a packed row of A by the 64 bytes of a packed panel of B, 4 for each of 16 columns, and
// adds the products of each column to its sum. With VNNI they are 4 neighbours in K, A's as int8 and B's as uint8;
// otherwise 2 neighbours as int16. What the other signedness needs is a shift of the values by 128, which moves their
// zero point by as much.
#pragma once
#include "kernels/cpu/igemm/igemm.h"
#include "kernels/cpu/simd.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

#if defined(__AVX512VNNI__)
constexpr int kDepth = 4;
typedef uint8_t Packed;
constexpr bool kShiftUnsignedA = true, kShiftSignedB = true;
#else
constexpr int kDepth = 2;
typedef int16_t Packed;
constexpr bool kShiftUnsignedA = false, kShiftSignedB = false;
#endif
constexpr int32_t kOnes = kDepth == 4 ? 0x01010101 : 0x00010001;

/// One sum for each of 16 columns.
struct Sums {
  NativeBits p[kParts];
};
typedef NativeBits UnalignedBits __attribute__((aligned(4), may_alias));
typedef int32_t UnalignedInt __attribute__((aligned(1), may_alias));

INFERKIT_INLINE int32_t load_int(const char* at) { return *(const UnalignedInt*)at; }
INFERKIT_INLINE Sums load_sums(const void* at) {
  Sums r;
  INFERKIT_EACH_PART r.p[i] = (NativeBits)((const UnalignedBits*)at)[i];
  return r;
}
INFERKIT_INLINE void store_sums(void* at, Sums v) { INFERKIT_EACH_PART((UnalignedBits*)at)[i] = (UnalignedBits)v.p[i]; }
/// The first of them.
INFERKIT_INLINE void store_some_sums(int32_t* at, Sums v, int64_t columns) {
  if (columns == kIgemmColumns) return store_sums(at, v);
  int32_t lanes[kIgemmColumns];
  store_sums(lanes, v);
  for (int64_t j = 0; j < columns; ++j) at[j] = lanes[j];
}

/// sum + the products of neighbours, where `a` repeats one step of a row.
INFERKIT_INLINE NativeBits add_products(NativeBits sum, NativeBits a, NativeBits b) {
#if defined(__AVX512VNNI__)
  return (NativeBits)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)b, (__m512i)a);
#elif defined(__AVX512F__)
  return sum + (NativeBits)_mm512_maskz_madd_epi16(0xffff, (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return sum + (NativeBits)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__x86_64__)
  return sum + (NativeBits)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
  const int16x8_t x = (int16x8_t)a, y = (int16x8_t)b;
  return sum + (NativeBits)vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y));
#endif
}
INFERKIT_INLINE Sums add_products(Sums sum, int32_t a, Sums b) {
  const NativeBits repeated = static_cast<uint32_t>(a) - NativeBits{};
  INFERKIT_EACH_PART sum.p[i] = add_products(sum.p[i], repeated, b.p[i]);
  return sum;
}

INFERKIT_INLINE int64_t steps_of(int64_t k) { return (k + kDepth - 1) / kDepth; }
INFERKIT_INLINE int64_t row_bytes(int64_t k) { return (steps_of(k) + 1) * 4; }
INFERKIT_INLINE int64_t panel_bytes(int64_t k) { return row_bytes(k) * kIgemmColumns; }

/// Of any tile.
constexpr int kMostRows = 32;
/// Bytes of B that the rows of A pass over before the next ones come: half of a small L2.
constexpr int64_t kBlockBytes = 768 << 10;

/// Zero point `line` of a matrix, moved as its packed values are.
INFERKIT_INLINE uint32_t zero_of(const ZeroPoints& zero, int64_t line, bool is_signed, int32_t shift) {
  int32_t value = 0;
  if (zero.data) {
    const int64_t i = zero.per_line ? line : 0;
    value = is_signed ? int32_t{static_cast<const int8_t*>(zero.data)[i]}
                      : int32_t{static_cast<const uint8_t*>(zero.data)[i]};
  }
  return static_cast<uint32_t>(value + shift);
}

/// Zero points of the columns of a panel.
INFERKIT_INLINE Sums zeros_of_columns(const IgemmArgs& g, int64_t column, int64_t columns, int32_t shift) {
  if (!g.b_zero.data || !g.b_zero.per_line) {
    const uint32_t zero = zero_of(g.b_zero, 0, g.b_signed, shift);
    Sums all;
    INFERKIT_EACH_PART all.p[i] = zero - NativeBits{};
    return all;
  }
  uint32_t zeros[kIgemmColumns] = {};
  for (int64_t j = 0; j < columns; ++j) zeros[j] = zero_of(g.b_zero, column + j, g.b_signed, shift);
  return load_sums(zeros);
}

/// ScaledSums of a tile's sums, which lie `panels` * 16 apart.
[[gnu::noinline]] void scale_tile(const ScaledSums& to, const uint32_t* sums, int64_t row, int64_t rows, int64_t column,
                                  int64_t columns, int64_t panels) {
  for (int64_t r = row; r < row + rows; ++r, sums += panels * kIgemmColumns) {
    const F32x16 by = broadcast(to.row[r]);
    float* y = to.y + r * to.ldy + column;
    const float* base = to.base ? to.base + r * to.base_row + column : nullptr;
    for (int64_t j = 0; j < columns; j += kIgemmColumns) {
      I32x16 sum;
      memcpy(&sum, sums + j, sizeof(sum));
      if (const int64_t rest = columns - j; rest < kIgemmColumns) {
        const F32x16 v = to_float(sum) * (by * load_partial(to.column + column + j, rest));
        store_partial(y + j, base ? load_partial(base + j, rest) + v : v, rest);
      } else {
        const F32x16 v = to_float(sum) * (by * load(to.column + column + j));
        store(y + j, base ? load(base + j) + v : v);
      }
    }
  }
}

/// C[row .. row + rows) x panels [panel .. panel + panels) from the sums of products:
/// sum (a - az)(b - bz) = sum ab - az sum b - bz (sum a - k az).
[[gnu::noinline]] void finish_tile(const IgemmArgs& g, int64_t row, int rows, int64_t panel, int panels,
                                   uint32_t* sums) {
  const int64_t steps = steps_of(g.k), a_stride = row_bytes(g.k), b_stride = panel_bytes(g.k);
  const char* a_sums = static_cast<const char*>(g.a) + row * a_stride + steps * 4;
  const char* b_sums = static_cast<const char*>(g.b) + panel * b_stride + steps * 64;
  const int32_t a_shift = kShiftUnsignedA && !g.a_signed ? -128 : 0, b_shift = kShiftSignedB && g.b_signed ? 128 : 0;
  uint32_t a_zero[kMostRows], a_rest[kMostRows];
  for (int r = 0; r < rows; ++r) {
    a_zero[r] = zero_of(g.a_zero, row + r, g.a_signed, a_shift);
    a_rest[r] = static_cast<uint32_t>(load_int(a_sums + r * a_stride)) - static_cast<uint32_t>(g.k) * a_zero[r];
  }
  for (int p = 0; p < panels; ++p) {
    const int64_t column = (panel + p) * kIgemmColumns;
    const int64_t columns = g.n - column < kIgemmColumns ? g.n - column : kIgemmColumns;
    const Sums b_sum = load_sums(b_sums + p * b_stride), b_zero = zeros_of_columns(g, column, columns, b_shift);
    for (int r = 0; r < rows; ++r) {
      uint32_t* at = sums + (r * panels + p) * kIgemmColumns;
      Sums v = load_sums(at);
      INFERKIT_EACH_PART v.p[i] -= a_zero[r] * b_sum.p[i] + b_zero.p[i] * a_rest[r];
      if (g.c) {
        store_some_sums(g.c + (row + r) * g.ldc + column, v, columns);
      } else {
        store_sums(at, v);
      }
    }
  }
  if (g.c) return;
  const int64_t column = panel * kIgemmColumns, columns = g.n - column, most = panels * kIgemmColumns;
  scale_tile(g.scaled, sums, row, rows, column, columns < most ? columns : most, panels);
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
