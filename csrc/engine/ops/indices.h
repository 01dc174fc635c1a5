// Indices that arrive during a run: int32 or int64, negative ones count from the end, others are checked.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "engine/ops/dispatch.h"

namespace inferkit {

[[noreturn]] inline void throw_index(int64_t index, int64_t dim) {
  throw Error(ErrorCode::kInference, cat("index ", index, " is out of range for a dimension of ", dim));
}

/// The index at place i of `data`, brought into [0, dim); throws Error(kInference) where it is out of [-dim, dim).
template <class I>
int64_t index_at(const std::byte* data, int64_t i, int64_t dim) {
  const int64_t index = reinterpret_cast<const I*>(data)[i];
  const int64_t wrapped = index < 0 ? index + dim : index;
  if (wrapped < 0 || wrapped >= dim) throw_index(index, dim);
  return wrapped;
}

inline constexpr TypeSet kIndexTypes = types(DType::kI32, DType::kI64);

inline void require_indices(const NodeContext& c, size_t i) {
  if (c.knows(i) && !contains(kIndexTypes, c.input(i).dtype)) {
    c.wrong(cat("indices must be int32 or int64, not ", dtype_name(c.input(i).dtype)));
  }
}

/// The axes but `axis` along which an input of indices, number 1, is longer or shorter than input 0: an index belongs
/// to the element at its own place there, counted from the first.
inline Axes axes_counted_from_first(const NodeContext& c, size_t axis) {
  const Shape &x = c.input(0).shape, &indices = c.input(1).shape;
  Axes out = 0;
  for (size_t i = 0; i < std::min(x.rank(), indices.rank()); ++i) {
    if (i != axis && x[i] != indices[i]) out = static_cast<Axes>(out | one_axis(static_cast<int64_t>(i)));
  }
  return out;
}

}  // namespace inferkit
