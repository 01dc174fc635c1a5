// Numbers as integers, where C++ leaves open what becomes of those that do not fit.
#pragma once
#include <cmath>
#include <limits>

namespace inferkit {

/// Truncated; the nearest integer that there is where it is too small or too large, 0 for NaN: what Cast does.
template <class T, class F>
T saturated(F v) {
  const F above = std::ldexp(F{1}, std::numeric_limits<T>::digits);  // 2^digits: the first that does not fit
  if (v >= above) return std::numeric_limits<T>::max();
  if (v > static_cast<F>(std::numeric_limits<T>::lowest())) return static_cast<T>(v);
  return v != v ? T{0} : std::numeric_limits<T>::lowest();
}

}  // namespace inferkit
