// Sums and products of what kernels compute in: integers wrap around, as numpy's do, where C++ leaves it open.
#pragma once
#include <cstdint>
#include <type_traits>

namespace inferkit {

template <class W>
W wrap_add(W a, W b) {
  if constexpr (std::is_floating_point_v<W>)
    return a + b;
  else
    return static_cast<W>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}
template <class W>
W wrap_mul(W a, W b) {
  if constexpr (std::is_floating_point_v<W>)
    return a * b;
  else
    return static_cast<W>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}

}  // namespace inferkit
