// Which element of several is the greatest, or the least: NaN is both, and of equals the first or the last.
#pragma once
#include <type_traits>

namespace inferkit {

template <class C>
bool is_nan(C v) {
  return v != v;
}

/// Does `v`, which comes later, replace `best`?
template <bool kMax, bool kLast, class C>
bool replaces(C v, C best) {
  if constexpr (std::is_floating_point_v<C>) {
    if (is_nan(v) || is_nan(best)) return is_nan(v) && (kLast || !is_nan(best));
  }
  return (kMax ? v > best : v < best) || (kLast && v == best);
}

}  // namespace inferkit
