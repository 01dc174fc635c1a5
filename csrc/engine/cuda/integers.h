// What operators do with int32, int64 and bool, for those that take float32, too.
#pragma once
#include "engine/cuda/launch.h"

namespace inferkit::cuda {

inline bool is_whole(DType dtype) { return dtype == DType::kI32 || dtype == DType::kI64; }
/// Float32, int32 or int64: what most arithmetic takes.
inline Cost number_cost(const NodeContext& c) {
  const DType dtype = c.input(0).dtype;
  return dtype == DType::kF32 || is_whole(dtype) ? Cost(0) : Cost::cannot("it takes float32, int32 and int64 alone");
}

/// y = a op b, broadcast.
void lower_whole(LowerContext& c, device::Whole op);
/// y = op(x).
void lower_whole(LowerContext& c, device::WholeUnary op);
/// y = x reduced along the dimensions of `reduced`.
void lower_whole(LowerContext& c, device::WholeReduce op, const device::Nest<1>& kept, const device::Nest<1>& reduced);

}  // namespace inferkit::cuda
