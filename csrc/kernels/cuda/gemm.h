// C = f(A B + bias) in float with the bits of the CPU's GEMM: chunks of K that the layer fixes, each summed from zero
// in ascending order, added from the first to the last (kernels/summation.h).
#pragma once
#include <stdint.h>

#include "kernels/cpu/vmath/vmath.h"
#include "kernels/cuda/nest.h"
#include "kernels/cuda/tile.h"

namespace inferkit::kernels::cuda {

/// `batch.n` products of [m, k] by [k, n]; operands of the batch's nest: a, b. C is contiguous.
struct GemmParams {
  const float *a, *b;
  float* c;
  const float* bias;  // n values, or null
  uint64_t* words;    // where not null: the elements go there and not to c, each with *run as its upper half
  const uint32_t* run;
  int64_t m, n, k;
  int64_t a_row;         // elements from a row of A to the next; its elements are neighbours
  int64_t b_row, b_col;  // from (k, n) to (k + 1, n), and to (k, n + 1)
  int64_t chunk;
  Nest<2> batch;
  float alpha, beta;  // of act
  Unary act;
};

/// gemm_tiled, gemm_wide: a block makes kTile x kTile elements of C, or kWideTile x kWideTile. gridDim: columns, rows,
/// products.

/// gemm_strips_1, 4, 8, 16: for few tiles. A block makes so many rows of kStripColumns columns, by as many warps as
/// there are chunks, kMostSlices at most. gridDim: columns, rows, products.
inline constexpr int kStripColumns = 32, kStripDepth = 32;
constexpr size_t strip_shared(int slices, int rows) {
  return static_cast<size_t>((slices + 1) * rows * kStripColumns) * sizeof(float);
}

}  // namespace inferkit::kernels::cuda
