// Tensors of strings that own what their views show.
#pragma once
#include <span>
#include <string>
#include <string_view>

#include "graph/ir.h"

namespace inferkit {

/// Neighbours that show the same bytes share a copy of them.
Tensor text_tensor(const Shape& shape, std::span<const std::string_view> values);
Tensor text_tensor(const Shape& shape, std::span<const std::string> values);
/// The bytes that it takes, views left out.
size_t text_bytes(std::span<const std::string_view> values);

/// The strings of a value.
inline std::span<const std::string_view> strings_of(const TensorView& value) {
  return {value.as<std::string_view>(), static_cast<size_t>(value.shape.elements())};
}

/// A copy of a value of any dtype that shares nothing with it.
Tensor copied(const TensorView& value);

}  // namespace inferkit
