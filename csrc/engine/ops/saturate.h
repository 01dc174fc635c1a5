// Numbers as integers, where C++ leaves open what becomes of those that do not fit.
#pragma once
#include <cmath>
#include <limits>

namespace inferkit {

/// Truncated; the nearest integer that there is where it is too small or too large, 0 for NaN: what Cast does.
template <class T>
T saturated(double v) {
  if (!(v > static_cast<double>(std::numeric_limits<T>::lowest())))
    return v != v ? T{0} : std::numeric_limits<T>::lowest();
  if (v >= std::ldexp(1.0, std::numeric_limits<T>::digits)) return std::numeric_limits<T>::max();
  return static_cast<T>(v);
}

}  // namespace inferkit
