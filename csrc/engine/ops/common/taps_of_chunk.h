// The chunks of sums that a window's taps make by adding to pixels, rather than by reading them.
#pragma once
#include <numeric>

#include "engine/compile/window.h"
#include "kernels/summation.h"

namespace inferkit {

/// Where each tap of a window adds to the pixels that it falls on (ConvTranspose, Col2Im), a pixel's sum is of those
/// taps that reach it: so many in a chunk of the summation rule. A stride lets fewer reach each.
inline int64_t taps_of_chunk(const Window& w) {
  int64_t terms = 1, apart = 1;
  for (const WindowDim& d : w.dim) {
    const int64_t step = std::min(d.kernel, d.stride / std::gcd(d.stride, d.dilation));
    terms *= (d.kernel + step - 1) / step;
    apart *= step;
  }
  const int64_t chunk = kernels::sum_chunk(terms);
  return chunk < terms ? chunk * apart : w.kernel_elements();
}

}  // namespace inferkit
