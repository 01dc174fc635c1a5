// Numbers of one type as those of another, by the rules of the operator Cast.
#pragma once
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "base/dtype.h"

namespace inferkit {

/// The first `n` elements of `from`, each converted with one rounding, to `to`.
using CastFn = void (*)(const std::byte* from, std::byte* to, int64_t n);

/// Null for strings and for what base/small_types.h has.
CastFn cast_elements(DType from, DType to);

// To odd: a number between two floats becomes the one whose last bit is 1, so that a second rounding, to nearest in
// fewer bits, is right.
inline float to_odd_float(double v) {
  const auto f = static_cast<float>(v);
  if (static_cast<double>(f) == v || v != v) return f;
  auto bits = std::bit_cast<uint32_t>(f);
  if (std::fabs(static_cast<double>(f)) > std::fabs(v)) --bits;
  return std::bit_cast<float>(bits | 1u);
}

template <class T>
double to_odd_double(T v) {  // of an integer
  if constexpr (sizeof(T) == 8) {
    constexpr T kSticky = (T{1} << 11) - 1;
    if (v > (T{1} << 53) || (std::is_signed_v<T> && v < static_cast<T>(-(int64_t{1} << 53)))) {
      v = static_cast<T>((v & kSticky) ? ((v & ~kSticky) | (T{1} << 11)) : v);
    }
  }
  return static_cast<double>(v);
}

}  // namespace inferkit
