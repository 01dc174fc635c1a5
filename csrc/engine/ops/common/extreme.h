// Which of two elements is the greater: NaN is greater than every number, and not than another NaN.
#pragma once
#include <type_traits>

namespace inferkit {

template <class C>
bool is_nan(C v) {
  return v != v;
}

template <class C>
bool is_greater(C a, C b) {
  if constexpr (std::is_floating_point_v<C>) {
    if (is_nan(a) || is_nan(b)) return is_nan(a) && !is_nan(b);
  }
  return a > b;
}

}  // namespace inferkit
