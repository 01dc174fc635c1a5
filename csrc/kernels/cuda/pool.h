// Pooling of planes and volumes of float with the bits of kernels/cpu/pool: the window's columns are combined first,
// each from top to bottom and in each row slice by slice, then the results from left to right. Columns in the padding
// count: as zeros of a sum, as -inf of a maximum.
#pragma once
#include "kernels/cuda/conv.h"

namespace inferkit::kernels::cuda {

/// y [planes, d.out, h.out, w.out] of x [planes, d.in, h.in, w.in], the elements of a plane, and of the window of an
/// average, less than 2^31, and 2^24. A maximum of nothing is -inf, an average of nothing 0.
struct PoolParams {
  const float* x;
  float* y;
  WindowAxis d, h, w;
  int32_t d_pad_end, h_pad_end, w_pad_end;
  int64_t planes;
  int32_t h_chunk, w_chunk;  // of a sum, down (and through all slices) and across: kernels/summation.h
  bool average;
  bool include_pad;  // of an average: padding, but not what lies behind it, counts among what is divided by
};

/// The maximum, and where it is: the first of several, or the first NaN, in the order of memory. Its place is counted
/// over all planes, in a plane along the first dimension first where `column_major`; -1 for nothing.
struct PoolIndexParams {
  const float* x;
  float* y;
  int64_t* index;  // may be null
  WindowAxis d, h, w;
  int64_t planes;
  bool column_major;
};

/// y = scale[c] * x + shift[c], fused, for x [batch, channels, area]; shift follows scale.
struct AffineParams {
  const float *x, *scale;
  float* y;
  int64_t batch, channels, area;
};

}  // namespace inferkit::kernels::cuda
