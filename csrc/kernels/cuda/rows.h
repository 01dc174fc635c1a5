// Kernels of rows: softmax, normalisations, reductions, with the bits of kernels/cpu/row. A warp takes a row: thread t
// holds lanes t and t + 32 of the 64 that the CPU sums in, and the tree over them is the CPU's.
#pragma once
#include "kernels/cpu/row/row.h"
#include "kernels/cuda/nest.h"

namespace inferkit::kernels::cuda {

inline constexpr unsigned kRowThreads = 128, kRowsOfBlock = kRowThreads / 32;

/// Softmax, or its logarithm, of x [outer, n, inner] along n. y may be x.
struct SoftmaxParams {
  const float* x;
  float* y;
  int64_t outer, n, inner;
  bool log;
};

/// LayerNorm (center) or RMSNorm of `rows` rows of n > 0. y may be x. Element i of row r takes value
/// (r % groups) * per_group + i / inner of scale and bias.
struct NormParams {
  const float *x, *scale, *bias;  // scale and bias: or null
  float* y;
  int64_t rows, n;
  float epsilon;
  bool center;
  int64_t groups = 1, per_group = 0, inner = 1;
};

/// y[i] = the reduction of `reduced.n` > 0 elements of x, for kept.n outputs; operand of both nests: x. Of the sum,
/// kRoot takes the square root and kLog the logarithm.
struct ReduceParams {
  enum class After : uint8_t { kNothing, kRoot, kLog };
  const float* x;
  float* y;
  Nest<1> kept, reduced;
  Reduce op;
  After after;
};

}  // namespace inferkit::kernels::cuda
