// An element of a tensor of strings: a view of UTF-8 whose bytes lie elsewhere. All bits zero are an empty one, and
// whoever moves elements moves views.
#pragma once
#include <string_view>

#include "base/dtype.h"

namespace inferkit {

template <>
struct DTypeOf<std::string_view> {
  static constexpr DType kValue = DType::kString;
};

}  // namespace inferkit
