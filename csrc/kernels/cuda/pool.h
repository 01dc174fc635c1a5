// Pooling of planes of float with the bits of kernels/cpu/pool: the window's columns are combined first, each from top
// to bottom, then the results from left to right. Columns in the padding count: as zeros of a sum, as -inf of a
// maximum.
#pragma once
#include "kernels/cuda/conv.h"

namespace inferkit::kernels::cuda {

/// y [planes, h.out, w.out] of x [planes, h.in, w.in], each dimension less than 2^31. A maximum of nothing is -inf, an
/// average of nothing 0.
struct PoolParams {
  const float* x;
  float* y;
  WindowAxis h, w;
  int32_t h_pad_end, w_pad_end;
  int64_t planes;
  int32_t h_chunk, w_chunk;  // of a sum, down and across: kernels/summation.h
  bool average;
  bool include_pad;  // of an average: padding, but not what lies behind it, counts among what is divided by
};

/// y = scale[c] * x + shift[c], fused, for x [batch, channels, area]; shift follows scale.
struct AffineParams {
  const float *x, *scale;
  float* y;
  int64_t batch, channels, area;
};

}  // namespace inferkit::kernels::cuda
