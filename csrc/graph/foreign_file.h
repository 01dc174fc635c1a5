// Files that people give for a model and that are none.
#pragma once
#include <cstddef>
#include <span>
#include <string_view>

namespace inferkit {

/// What a file that could not be read as ONNX is, by its first bytes, and what to do: "a Git LFS pointer: ...". Empty
/// where nothing is recognised.
std::string_view foreign_format(std::span<const std::byte> bytes);

}  // namespace inferkit
