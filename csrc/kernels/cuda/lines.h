// Kernels of lines: the elements along one axis, in their order, each line by one thread. And of what lies beside.
#pragma once
#include "kernels/cuda/elementwise.h"

namespace inferkit::kernels::cuda {

/// y = the sums, or products, of x [outer, n, inner] along n up to each element, or without it (exclusive), from the
/// end (reverse); of float32, int32 or int64, which wraps around. y may be x.
struct CumulateParams {
  const void* x;
  void* y;
  int64_t outer, n, inner;
  Element type;
  bool product, exclusive, reverse;
};

/// y at the index of each update along the axis becomes the update, or the sum or product with it: for each of lines.n
/// lines, `n` updates in their order. Operands of the nest: y without the axis, updates (as which indices lie). Of
/// elements of `width` bytes; sums and products of `type`. An index that is out of range sets *fault to `step` + 1,
/// unless an earlier step did, and changes nothing.
enum class Scatter : uint8_t { kReplace, kAdd, kMul };
struct ScatterParams {
  const void* indices;
  const void* updates;
  void* y;
  uint32_t* fault;
  Nest<2> lines;
  int64_t n, dim, axis_stride, update_stride;
  uint32_t step;
  int32_t width;
  Element type;
  Scatter op;
  bool wide;  // indices are int64, else int32
};

/// y [outer, depth, inner] = values[1] where the index of [outer, inner], which counts from the end below 0, is the
/// place along depth, else values[0]; of `width` bytes. Indices are float32, which are truncated, int32 or int64.
struct OneHotParams {
  const void* indices;
  const void* values;
  void* y;
  int64_t outer, depth, inner;
  Element type;
  int32_t width;
};

/// y = x / (bias + alpha / size * sum of squares over `size` neighbouring channels) ^ beta, of [batch, channels, area]:
/// the sums in chunks of `chunk`, the power by logarithm and exponential, as on the CPU.
struct NeighboursParams {
  const float* x;
  float* y;
  int64_t batch, channels, area, size, chunk;
  float factor, bias, power;  // alpha / size, -beta
};

}  // namespace inferkit::kernels::cuda
