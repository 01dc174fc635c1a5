// Interpolation along one axis, with the bits of engine/ops/resize.cc: products and sums are rounded apart.
#pragma once
#include <stdint.h>

namespace inferkit::kernels::cuda {

/// y [outer, out, inner] of x [outer, in, inner]: y at o is the sum of weights[o taps + t] * x at index[o taps + t], in
/// chunks of `chunk` taps, or `outside` where index[o taps] is negative. A thread makes an element.
struct ResizeParams {
  const float* x;
  const int64_t* index;
  const float* weights;
  float* y;
  int64_t outer, in, out, inner, taps, chunk;
  float outside;
};

}  // namespace inferkit::kernels::cuda
