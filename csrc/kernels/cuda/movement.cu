#include "kernels/cuda/movement.h"
#include "kernels/cuda/platform.h"

namespace inferkit::kernels::cuda {
namespace {

/// `from` may be null: zero.
template <class T>
INFERKIT_DEVICE void move_unit(void* to, int64_t i, const void* from, int64_t j) {
  store_as<T>(static_cast<T*>(to) + i, from ? load_as<T>(static_cast<const T*>(from) + j) : T{});
}
INFERKIT_DEVICE void move_one(int32_t width, void* to, int64_t i, const void* from, int64_t j) {
  if (width == 4) {
    move_unit<uint32_t>(to, i, from, j);
  } else if (width == 8) {
    move_unit<uint64_t>(to, i, from, j);
  } else if (width == 2) {
    move_unit<uint16_t>(to, i, from, j);
  } else {
    move_unit<uint8_t>(to, i, from, j);
  }
}
/// Where units of 16 bytes may be, too.
INFERKIT_DEVICE void move_any(int32_t width, void* to, int64_t i, const void* from, int64_t j) {
  if (width == 16) {
    move_unit<uint4>(to, i, from, j);
  } else {
    move_one(width, to, i, from, j);
  }
}

}  // namespace

INFERKIT_KERNEL(copy_strided, CopyParams, 256, 6) {
  for (int64_t i = first_element(); i < p.nest.n; i += element_step()) {
    int64_t at[2];
    offsets_of(p.nest, i, at);
    move_any(p.width, p.y, at[1], p.x, at[0]);
  }
}

namespace {

/// The tile of x and y that begin here, of which `rows` and `columns` are there. A row of it in shared memory is one
/// longer than it need be, so that a column of it lies in as many banks as a row.
template <class T>
INFERKIT_DEVICE void transpose_tile(const T* x, int64_t x_column, T* y, int64_t y_row, int64_t rows, int64_t columns,
                                    T* tile) {
  constexpr int kPitch = kMoveTile + 1, kStep = kMoveThreads / kMoveTile, kEach = kMoveTile / kStep;
  const int along = static_cast<int>(threadIdx.x) % kMoveTile, across = static_cast<int>(threadIdx.x) / kMoveTile;
  const T* const from = x + along + across * x_column;
  T* const to = y + along + across * y_row;
  T v[kEach];
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    v[k] = along < rows && across + k * kStep < columns ? from[k * kStep * x_column] : T{0};
  }
#pragma unroll
  for (int k = 0; k < kEach; ++k) tile[(across + k * kStep) * kPitch + along] = v[k];
  __syncthreads();
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    if (along < columns && across + k * kStep < rows) to[k * kStep * y_row] = tile[along * kPitch + across + k * kStep];
  }
  __syncthreads();  // before the next tile
}
template <class T>
INFERKIT_DEVICE void transpose_tiles(const TransposeParams& p) {
  INFERKIT_SHARED(T, tile);
  for (int64_t i = blockIdx.x; i < p.tiles.n; i += gridDim.x) {
    int64_t at[4];
    offsets_of(p.tiles, i, at);
    transpose_tile(static_cast<const T*>(p.x) + at[0], p.x_column, static_cast<T*>(p.y) + at[1], p.y_row,
                   p.rows - at[2], p.columns - at[3], tile);
  }
}

}  // namespace

INFERKIT_KERNEL(transpose, TransposeParams, 256, 4) {
  if (p.width == 4) {
    transpose_tiles<uint32_t>(p);
  } else if (p.width == 8) {
    transpose_tiles<uint64_t>(p);
  } else if (p.width == 2) {
    transpose_tiles<uint16_t>(p);
  } else {
    transpose_tiles<uint8_t>(p);
  }
}

INFERKIT_KERNEL(answer, AnswerParams, 256, 4) {
  const uint32_t run = *p.run;
  for (int64_t i = first_element(); i < p.n; i += element_step()) put_word(p.y + i, p.x[i], run);
}

INFERKIT_KERNEL(pick, PickParams, 256, 4) {
  for (int64_t i = first_element(); i < p.n; i += element_step()) {
    int64_t rest = i, from = 0;
    bool inside = true;
    for (int d = p.rank - 1; d >= 0; --d) {
      const int64_t source = p.index[p.table[d] + (d == 0 ? rest : rest % p.dims[d])];
      rest /= p.dims[d];
      inside = inside && source >= 0;
      from += source * p.strides[d];
    }
    move_one(p.width, p.y, i, inside ? p.x : p.fill, inside ? from : 0);
  }
}

INFERKIT_KERNEL(keep_triangle, TriangleParams, 256, 4) {
  int64_t k = p.k ? *p.k : 0;
  k = k < -p.rows ? -p.rows : k > p.columns ? p.columns : k;
  const int64_t n = p.matrices * p.rows * p.columns;
  for (int64_t i = first_element(); i < n; i += element_step()) {
    const int64_t distance = i % p.columns - i / p.columns % p.rows - k;
    move_one(p.width, p.y, i, (p.upper ? distance >= 0 : distance <= 0) ? p.x : nullptr, i);
  }
}

namespace {

/// The index at place i, brought into [0, dim); -1 where it is out of range, which is noted.
template <class Params>
INFERKIT_DEVICE int64_t index_at(const Params& p, int64_t i, int64_t dim) {
  int64_t index = p.wide ? static_cast<const int64_t*>(p.indices)[i] : static_cast<const int32_t*>(p.indices)[i];
  if (index < 0) index += dim;
  if (index >= 0 && index < dim) return index;
  if (*p.fault == 0) *p.fault = p.step + 1;
  return -1;
}

}  // namespace

INFERKIT_KERNEL(gather_rows, GatherParams, 256, 4) {
  const int64_t n = p.outer * p.count * p.row_units;
  for (int64_t i = first_element(); i < n; i += element_step()) {
    int64_t place, outer;
    if (p.is_small) {
      place = quotient(static_cast<uint32_t>(i), p.by_units);
      outer = quotient(static_cast<uint32_t>(place), p.by_count);
    } else {
      place = i / p.row_units;
      outer = place / p.count;
    }
    const int64_t unit = i - place * p.row_units, which = place - outer * p.count;
    const int64_t index = index_at(p, which, p.dim);
    const bool inside = index >= 0;
    move_any(p.width, p.y, i, inside ? p.x : nullptr, inside ? (outer * p.dim + index) * p.row_units + unit : 0);
  }
}

INFERKIT_KERNEL(gather_elements, GatherElementsParams, 256, 4) {
  for (int64_t i = first_element(); i < p.nest.n; i += element_step()) {
    int64_t at[2];
    offsets_of(p.nest, i, at);
    const int64_t index = index_at(p, at[1], p.dim);
    const bool inside = index >= 0;
    move_one(p.width, p.y, at[1], inside ? p.x : nullptr, inside ? at[0] + index * p.axis_stride : 0);
  }
}

INFERKIT_KERNEL(gather_tuples, GatherTuplesParams, 256, 4) {
  const int64_t n = p.batches * p.tuples * p.row_units;
  for (int64_t i = first_element(); i < n; i += element_step()) {
    const int64_t unit = i % p.row_units, tuple = i / p.row_units;
    int64_t from = tuple / p.tuples * p.batch_units + unit;
    bool inside = true;
    for (int d = 0; d < p.depth; ++d) {
      const int64_t index = index_at(p, tuple * p.depth + d, p.dims[d]);
      inside = inside && index >= 0;
      from += index * p.strides[d];
    }
    move_one(p.width, p.y, i, inside ? p.x : nullptr, inside ? from : 0);
  }
}

}  // namespace inferkit::kernels::cuda
