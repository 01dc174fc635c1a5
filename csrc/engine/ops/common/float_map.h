// A step that maps a vector kernel over float32, float16 or bfloat16; half types are widened and rounded once.
#pragma once
#include "engine/compile/lower.h"
#include "kernels/cpu/vmath/vmath.h"

namespace inferkit {

/// Output 0 = fn(input 0); true if input 0 has one of the three types, else nothing was added. `nanos` is what one
/// element costs.
bool lower_float_map(LowerContext& c, kernels::UnaryFn fn, float alpha, float beta, double nanos);

}  // namespace inferkit
