// Kernels that move elements and compute nothing.
#pragma once
#include "kernels/cuda/nest.h"

namespace inferkit::kernels::cuda {

/// y[sum of index * stride 1] = x[sum of index * stride 0] for nest.n elements of `width` bytes (1, 2, 4 or 8);
/// operands of the nest: x, y. Transpose, Expand, Slice, and the parts of Concat and Split.
struct CopyParams {
  const void* x;
  void* y;
  Nest<2> nest;
  int32_t width;
};

/// y[i] = x[i] with *run as its upper half.
struct AnswerParams {
  const uint32_t* x;
  const uint32_t* run;
  uint64_t* y;
  int64_t n;
};

/// y[i] = x at the sum of index[table[d] + i's place along d] * strides[d], or *fill where one of these is -1: what
/// says of each dimension by itself where it comes from, as Pad does. `fill` is null for zero.
struct PickParams {
  const void* x;
  const int64_t* index;
  const void* fill;
  void* y;
  int64_t n;
  int64_t dims[kMostDims], strides[kMostDims], table[kMostDims];
  int32_t rank, width;
};

/// y = the elements of x [matrices, rows, columns] on the diagonal number *k (null: 0) and above it, or below; zeros
/// elsewhere. Units of `width` bytes; y may be x.
struct TriangleParams {
  const void* x;
  const int64_t* k;
  void* y;
  int64_t matrices, rows, columns;
  int32_t width;
  bool upper;
};

/// y = rows of x by their indices: x is [outer, dim, row], y is [outer, count, row], a row has `row_units` units of
/// `width` bytes. Negative indices count from the end. One that is out of range sets *fault to `step` + 1, unless an
/// earlier step did, and gives zeros.
struct GatherParams {
  const void* x;
  const void* indices;
  void* y;
  uint32_t* fault;
  int64_t outer, dim, count, row_units;
  uint32_t step;
  int32_t width;
  bool wide;  // indices are int64, else int32
};

/// y[i] = x at the place of i without the axis, and at the index of i along it; operands of the nest: x, with a stride
/// of 0 along the axis, and indices, as which y lies. Indices as in GatherParams.
struct GatherElementsParams {
  const void* x;
  const void* indices;
  void* y;
  uint32_t* fault;
  Nest<2> nest;
  int64_t dim, axis_stride;
  uint32_t step;
  int32_t width;
  bool wide;
};

/// y = rows of x by tuples of indices: x is [batches, dims..., row], y is [batches, tuples, row]; a tuple has `depth`
/// indices, one for each of dims, which are `strides` units apart. Indices as in GatherParams.
struct GatherTuplesParams {
  const void* x;
  const void* indices;
  void* y;
  uint32_t* fault;
  int64_t batches, tuples, batch_units, row_units;
  int64_t dims[kMostDims], strides[kMostDims];
  int32_t depth;
  uint32_t step;
  int32_t width;
  bool wide;
};

}  // namespace inferkit::kernels::cuda
