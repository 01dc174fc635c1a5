// Files that people give for a model, or find beside it, and that are not what they are taken for.
#pragma once
#include <cstddef>
#include <span>
#include <string_view>

namespace inferkit {

/// What a file that could not be read as ONNX is, by its first bytes, and what to do: "a Git LFS pointer: ...". Empty
/// where nothing is recognised.
std::string_view foreign_format(std::span<const std::byte> bytes);

/// The same of what may be left in the place of any file, whatever it should hold: a Git LFS pointer or a web page. No
/// weights begin like them.
std::string_view stand_in(std::span<const std::byte> bytes);

}  // namespace inferkit
