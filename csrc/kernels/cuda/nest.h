// Loops over several dimensions for kernels: where element i of a row-major result lies in its operands.
#pragma once
#include <stdint.h>

namespace inferkit::kernels::cuda {

inline constexpr int kMostDims = 8;

/// How a device divides numbers below 2^31 by one that the host knows: i / d = (2 i multiplier / 2^32) >> shift, where
/// 2^shift >= d and the multiplier is 2^(31 + shift) / d, rounded up. That makes the result larger by less than
/// i / 2^(31 + shift) < 1 / d, and what i / d lacks to the next whole number is 1 / d at least. (Granlund and
/// Montgomery, Division by invariant integers using multiplication, PLDI 1994, theorem 4.2.)
struct Divisor {
  uint32_t multiplier = 0, shift = 0;
};

/// For 0 < d < 2^31.
constexpr Divisor divisor_of(int64_t d) {
  Divisor out;
  while ((int64_t{1} << out.shift) < d) ++out.shift;
  out.multiplier = static_cast<uint32_t>(((uint64_t{1} << (31 + out.shift)) + static_cast<uint64_t>(d) - 1) /
                                         static_cast<uint64_t>(d));
  return out;
}

/// What 32 bits, and divisors, are enough for.
inline constexpr int64_t kSmall = int64_t{1} << 31;

/// A result of `n` elements in `rank` dimensions, and the strides, in elements, with which N operands are read.
template <int N>
struct Nest {
  int64_t n;
  int64_t dims[kMostDims];
  int64_t strides[N][kMostDims];
  int32_t rank;
  // What prepare() finds out. Kernels do without.
  bool is_small = false;  // 32 bits, and divisors, are enough
  bool by_fours = false;
  Divisor divisors[kMostDims] = {};
};

template <int N>
bool is_small(const Nest<N>& nest) {
  if (nest.n <= 0 || nest.n >= kSmall) return false;
  for (const auto& strides : nest.strides) {
    int64_t reach = 0;
    for (int d = 0; d < nest.rank; ++d) {
      const int64_t stride = strides[d] < 0 ? -strides[d] : strides[d];
      if (stride >= kSmall) return false;
      reach += (nest.dims[d] - 1) * stride;
    }
    if (reach >= kSmall) return false;
  }
  return true;
}

/// Whether elements 4 i to 4 i + 3 of the result are neighbours in each operand, the first of them at a place that four
/// divides, or one and the same element. Of a result in one dimension the last three may be left over.
template <int N>
bool goes_by_fours(const Nest<N>& nest) {
  const int last = nest.rank - 1;
  if (last > 0 && nest.dims[last] % 4 != 0) return false;
  for (const auto& strides : nest.strides) {
    if (strides[last] == 0) continue;
    if (strides[last] != 1) return false;
    for (int d = 0; d < last; ++d) {
      if (strides[d] % 4 != 0) return false;
    }
  }
  return true;
}

/// For the host, when dimensions and strides are known: what makes kernels fast.
template <int N>
void prepare(Nest<N>& nest) {
  nest.is_small = is_small(nest);
  nest.by_fours = goes_by_fours(nest);
  for (int d = 0; d < nest.rank && nest.is_small; ++d) nest.divisors[d] = divisor_of(nest.dims[d]);
}

}  // namespace inferkit::kernels::cuda
