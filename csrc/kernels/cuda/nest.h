// Loops over several dimensions for kernels: where element i of a row-major result lies in its operands.
#pragma once
#include <stdint.h>

namespace inferkit::kernels::cuda {

inline constexpr int kMostDims = 8;

/// A result of `n` elements in `rank` dimensions, and the strides, in elements, with which N operands are read.
template <int N>
struct Nest {
  int64_t n;
  int64_t dims[kMostDims];
  int64_t strides[N][kMostDims];
  int32_t rank;
};

}  // namespace inferkit::kernels::cuda
