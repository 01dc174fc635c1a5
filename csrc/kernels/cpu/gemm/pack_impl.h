// Packing B into panels of 16 columns; part of gemm_impl.h.
#pragma once
#include "kernels/cpu/gemm/gemm.h"
#include "kernels/cpu/simd.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

void pack_b(const float* b, int64_t ldb, int64_t k, int64_t n, float* packed) {
  for (int64_t column = 0; column < n; column += kPanelColumns) {
    const int64_t columns = n - column;
    for (int64_t i = 0; i < k; ++i, packed += kPanelColumns) {
      const float* from = b + i * ldb + column;
      store(packed, columns < kPanelColumns ? load_partial(from, columns) : load(from));
    }
  }
}

/// Four rows of `from` become four lanes of four rows of a panel.
INFERKIT_INLINE void transpose_4x4(const float* from, int64_t ldb, float* to) {
  typedef float Unaligned __attribute__((vector_size(16), aligned(4), may_alias));
  const F32x4 a = *(const Unaligned*)from, b = *(const Unaligned*)(from + ldb);
  const F32x4 c = *(const Unaligned*)(from + 2 * ldb), d = *(const Unaligned*)(from + 3 * ldb);
  const F32x4 ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const F32x4 cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  *(Unaligned*)to = __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5);
  *(Unaligned*)(to + kPanelColumns) = __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7);
  *(Unaligned*)(to + 2 * kPanelColumns) = __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5);
  *(Unaligned*)(to + 3 * kPanelColumns) = __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7);
}

void pack_b_transposed(const float* b, int64_t ldb, int64_t k, int64_t n, float* packed) {
  for (int64_t column = 0; column < n; column += kPanelColumns, packed += k * kPanelColumns) {
    const float* from = b + column * ldb;
    int64_t i = 0;
    if (n - column >= kPanelColumns) {
      for (; i + 4 <= k; i += 4) {
        for (int j = 0; j < kPanelColumns; j += 4)
          transpose_4x4(from + j * ldb + i, ldb, packed + i * kPanelColumns + j);
      }
    }
    for (; i < k; ++i) {
      for (int64_t j = 0; j < kPanelColumns; ++j) {
        packed[i * kPanelColumns + j] = column + j < n ? from[j * ldb + i] : 0.0f;
      }
    }
  }
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
