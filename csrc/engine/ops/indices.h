// Indices that arrive during a run: int32 or int64, negative ones count from the end, others are checked.
#pragma once
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

}  // namespace inferkit
