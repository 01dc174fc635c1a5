// Kernels that move elements and compute nothing.
#pragma once
#include <stddef.h>

#include "kernels/cuda/nest.h"

namespace inferkit::kernels::cuda {

/// y[sum of index * stride 1] = x[sum of index * stride 0] for nest.n units of `width` bytes (1, 2, 4, 8 or 16);
/// operands of the nest: x, y. Transpose, Expand, Slice, and the parts of Concat and Split.
struct CopyParams {
  const void* x;
  void* y;
  Nest<2> nest;
  int32_t width;
};

/// y[i * y_row + j] = x[i + j * x_column] for `rows` of `columns` elements of `width` bytes (1, 2, 4 or 8), for each of
/// several matrices. A block moves tiles through shared memory, so that both neighbours in x and neighbours in y are
/// moved by neighbours among its threads. Operands of the nest: where a tile begins in x, in y, its row, its column.
inline constexpr int kMoveTile = 32, kMoveThreads = 256;
struct TransposeParams {
  const void* x;
  void* y;
  Nest<4> tiles;
  int64_t rows, columns, x_column, y_row;
  int32_t width;
};
constexpr size_t transpose_bytes(int32_t width) {
  return size_t{kMoveTile} * (kMoveTile + 1) * static_cast<size_t>(width);
}

/// The widest unit, of `width` to 16 bytes, that divides all that `places` was made of by or.
constexpr int32_t widest_unit(uint64_t places, int32_t width) {
  int32_t unit = 16;
  while (unit > width && places % static_cast<uint64_t>(unit) != 0) unit /= 2;
  return unit;
}

/// The same copy in units as wide as its runs and their addresses allow.
inline void widen(CopyParams& p) {
  const int last = p.nest.rank - 1;
  if (p.nest.strides[0][last] != 1 || p.nest.strides[1][last] != 1) return;
  const auto width = static_cast<uint64_t>(p.width);
  uint64_t places = reinterpret_cast<uintptr_t>(p.x) | reinterpret_cast<uintptr_t>(p.y);
  places |= static_cast<uint64_t>(p.nest.dims[last]) * width;
  for (int d = 0; d < last; ++d) {
    for (const auto& strides : p.nest.strides) places |= static_cast<uint64_t>(strides[d]) * width;
  }
  const int32_t unit = widest_unit(places, p.width), each = unit / p.width;
  p.width = unit;
  p.nest.n /= each;
  p.nest.dims[last] /= each;
  for (int d = 0; d < last; ++d) {
    for (auto& strides : p.nest.strides) strides[d] /= each;
  }
  prepare(p.nest);
}

/// Whether a copy turns runs of x into columns of y, and both are long enough to move tiles of them: `out` then does
/// it.
inline bool transposes(const CopyParams& p, TransposeParams& out) {
  constexpr int64_t kEnough = kMoveTile / 2;
  const Nest<2>& nest = p.nest;
  const int last = nest.rank - 1;
  if (p.width > 8 || nest.strides[1][last] != 1 || nest.dims[last] < kEnough) return false;
  int run = last;
  for (int d = 0; d < last; ++d) {
    if (nest.strides[0][d] == 1) run = d;
  }
  if (run == last || nest.strides[0][last] == 1 || nest.dims[run] < kEnough) return false;
  out = {p.x, p.y, {}, nest.dims[run], nest.dims[last], nest.strides[0][last], nest.strides[1][run], p.width};
  Nest<4>& tiles = out.tiles;
  tiles.n = 1;
  const auto add = [&](int64_t dim, const int64_t (&strides)[4]) {
    tiles.n *= dim;
    tiles.dims[tiles.rank] = dim;
    for (int k = 0; k < 4; ++k) tiles.strides[k][tiles.rank] = strides[k];
    ++tiles.rank;
  };
  for (int d = 0; d < last; ++d) {
    if (d != run) add(nest.dims[d], {nest.strides[0][d], nest.strides[1][d], 0, 0});
  }
  const auto tiles_of = [](int64_t n) { return (n + kMoveTile - 1) / kMoveTile; };
  add(tiles_of(out.rows), {kMoveTile, kMoveTile * out.y_row, kMoveTile, 0});
  add(tiles_of(out.columns), {kMoveTile * out.x_column, kMoveTile, 0, kMoveTile});
  prepare(tiles);
  return true;
}

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
  bool wide;              // indices are int64, else int32
  bool is_small = false;  // the divisors are those of row_units and count, and 32 bits are enough for places of y
  Divisor by_units = {}, by_count = {};
};

/// The same in units as wide as rows and addresses allow. For the host, when the addresses are known.
inline void widen(GatherParams& p) {
  const uint64_t places = reinterpret_cast<uintptr_t>(p.x) | reinterpret_cast<uintptr_t>(p.y) |
                          static_cast<uint64_t>(p.row_units) * static_cast<uint64_t>(p.width);
  const int32_t unit = widest_unit(places, p.width);
  p.row_units /= unit / p.width;
  p.width = unit;
  const int64_t n = p.outer * p.count * p.row_units;
  p.is_small = n > 0 && n < kSmall;
  if (!p.is_small) return;
  p.by_units = divisor_of(p.row_units);
  p.by_count = divisor_of(p.count);
}

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
