// Packing B into panels of 16 columns; part of gemm_impl.h.
#pragma once
#include "kernels/cpu/gemm/gemm.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/transpose_inl.h"

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

void pack_b_transposed(const float* b, int64_t ldb, int64_t k, int64_t n, float* packed) {
  for (int64_t column = 0; column < n; column += kPanelColumns, packed += k * kPanelColumns) {
    const float* from = b + column * ldb;
    int64_t i = 0;
    if (n - column >= kPanelColumns) {
      for (; i + 4 <= k; i += 4) {
        for (int j = 0; j < kPanelColumns; j += 4)
          transpose_4x4(from + j * ldb + i, ldb, packed + i * kPanelColumns + j, kPanelColumns);
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
