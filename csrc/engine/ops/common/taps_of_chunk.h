// The chunks of sums that a window's taps make by adding to pixels, rather than by reading them.
#pragma once
#include "engine/compile/window.h"
#include "kernels/summation.h"

namespace inferkit {

/// A pixel's sum is of those taps that reach it: so many of all taps in a chunk of the summation rule.
inline int64_t taps_of_chunk(const Window& w) {
  const auto [terms, apart] = reaching_taps(w);
  const int64_t chunk = kernels::sum_chunk(terms);
  return chunk < terms ? chunk * apart : w.kernel_elements();
}

}  // namespace inferkit
