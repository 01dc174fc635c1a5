// The chunks of sums that a window's taps make by adding to pixels, rather than by reading them.
#pragma once
#include <algorithm>

#include "engine/compile/window.h"
#include "kernels/summation.h"

namespace inferkit {

/// A pixel's sum is of those taps that reach it: so many of all taps in a chunk of the summation rule, and no more than
/// there are, where those that reach it are far from a whole part of all.
inline int64_t taps_of_chunk(const Window& w) {
  const auto [terms, apart] = reaching_taps(w);
  const int64_t chunk = kernels::sum_chunk(terms);
  return chunk < terms ? std::min(chunk * apart, w.kernel_elements()) : w.kernel_elements();
}

}  // namespace inferkit
