// Kernels that find where the greatest element of a row stands.
#pragma once
#include "kernels/cuda/elementwise.h"

namespace inferkit::kernels::cuda {

/// y [outer, inner] = the place of the greatest of x [outer, n, inner] along n > 0, or of the least: of float32, int32
/// or int64. NaN counts as more than that, for either; of equals the first is taken, or the last.
struct ArgParams {
  const void* x;
  int64_t* y;
  int64_t outer, n, inner;
  Element type;
  bool least, last;
};

}  // namespace inferkit::kernels::cuda
