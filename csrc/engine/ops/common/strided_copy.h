// Copying a tensor in another order: what Transpose, Slice, Expand and DepthToSpace come down to.
#pragma once
#include "engine/compile/lower.h"
#include "engine/compile/strided.h"

namespace inferkit {

/// Adds a step that fills `out` (row-major, of `shape`) with in[offset + sum of index * stride]; strides and offset
/// count elements of `dtype`, and strides may be 0 or negative.
void lower_strided_copy(LowerContext& c, Ref in, Ref out, DType dtype, const Shape& shape, const Strides& strides,
                        int64_t offset = 0);

/// True where that copy would change nothing: lower it as an alias.
bool is_identity(const Shape& shape, const Strides& strides, int64_t offset = 0);

}  // namespace inferkit
