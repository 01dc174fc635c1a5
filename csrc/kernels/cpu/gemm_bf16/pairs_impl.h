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
  typedef uint16_t U16x16 __attribute__((vector_size(32)));
  const NativeBits low = __builtin_convertvector((U16x16)_mm512_cvtneps_pbh(even.p[0]), NativeBits);
  const NativeBits high = __builtin_convertvector((U16x16)_mm512_cvtneps_pbh(odd.p[0]), NativeBits);
  return {{low | high << 16}};
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

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
