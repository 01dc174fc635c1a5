#include "kernels/cuda/movement.h"
#include "kernels/cuda/platform.h"

namespace inferkit::kernels::cuda {
namespace {

/// `from` may be null: zero.
template <class T>
INFERKIT_DEVICE void move_unit(void* to, int64_t i, const void* from, int64_t j) {
  static_cast<T*>(to)[i] = from ? static_cast<const T*>(from)[j] : T{0};
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

}  // namespace

INFERKIT_KERNEL(copy_strided, CopyParams, 256, 4) {
  for (int64_t i = first_element(); i < p.nest.n; i += element_step()) {
    int64_t at[2];
    offsets_of(p.nest, i, at);
    move_one(p.width, p.y, at[1], p.x, at[0]);
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
    const int64_t unit = i % p.row_units, place = i / p.row_units, which = place % p.count, outer = place / p.count;
    const int64_t index = index_at(p, which, p.dim);
    const bool inside = index >= 0;
    move_one(p.width, p.y, i, inside ? p.x : nullptr, inside ? (outer * p.dim + index) * p.row_units + unit : 0);
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
