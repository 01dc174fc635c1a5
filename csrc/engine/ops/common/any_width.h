// Steps that only move elements move strings, too: as views, without a look at what they show.
#pragma once
#include "engine/ops/dispatch.h"

namespace inferkit {

/// As wide as a string's view.
__extension__ typedef unsigned __int128 StringBits;

/// dispatch_width, with StringBits for strings.
template <class F>
auto dispatch_any_width(DType dtype, F&& f) {
  if (dtype == DType::kString) return f.template operator()<StringBits>();
  return dispatch_width(dtype, static_cast<F&&>(f));
}

}  // namespace inferkit
