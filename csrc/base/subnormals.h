// Subnormal numbers in memory.
#pragma once
#include <cstdint>

#include "base/dtype.h"

namespace inferkit {

/// Makes a zero of the same sign of each subnormal float32 or float64; leaves values of other types as they are.
void flush_subnormals(DType dtype, void* values, int64_t count);

}  // namespace inferkit
