// Messages from parts. Without iostreams: they bring the locale's state, which two copies of the C++ library in one
// process (one of them linked statically) must not share, and they cost time at import.
#pragma once
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace inferkit {

void append_number(std::string& out, int64_t number);
void append_number(std::string& out, uint64_t number);
/// Six significant digits, as printf's %g in the C locale.
void append_number(std::string& out, double number);

template <class T>
void append_to(std::string& out, const T& value) {
  if constexpr (std::same_as<T, char>) {
    out.push_back(value);
  } else if constexpr (std::floating_point<T>) {
    append_number(out, static_cast<double>(value));
  } else if constexpr (std::signed_integral<T>) {
    append_number(out, static_cast<int64_t>(value));
  } else if constexpr (std::integral<T>) {
    append_number(out, static_cast<uint64_t>(value));
  } else {
    out.append(std::string_view(value));
  }
}

/// Its arguments printed one after the other: text as it stands, numbers in decimal.
template <class... Args>
std::string cat(const Args&... args) {
  std::string out;
  (append_to(out, args), ...);
  return out;
}

}  // namespace inferkit
