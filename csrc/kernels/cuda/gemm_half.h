// C = f(A B + bias) on tensor cores: operands are rounded to bf16 or float16 as they come into shared memory, sums are
// float32. The terms are cut into chunks as in gemm.h, so an element of C depends on nothing but its row, its column
// and the layer; but how a tensor core adds up its 16 terms is its own affair (decision 058).
#pragma once
#include "kernels/cuda/gemm.h"

namespace inferkit::kernels::cuda {

struct HalfGemmParams {
  /// `chunk` is a multiple of 16. B's strides, in the batch too, are those of what is read.
  GemmParams of;
  /// B, where it is constant, in pairs: word (k / 2, n) holds the elements k (in the low half) and k + 1, with zeros
  /// behind the last of an odd K and the last column. Null: B is `of.b`.
  const uint32_t* pairs;
  int64_t pairs_row;  // words from a pair to the next: n, rounded up to a multiple of 4
};

/// gemm_bf16_tiled, gemm_bf16_wide, gemm_bf16_sliced, and the same of f16: cut as those of gemm.h. A warp of a sliced
/// one makes 16 rows however few there are, so none is for few rows.

}  // namespace inferkit::kernels::cuda
