// Messages from parts. Without iostreams: they bring the locale's state, which two copies of the C++ library in one
// process (one of them linked statically) must not share, and they cost time at import.
#pragma once
#include <bit>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace inferkit {

/// One argument of cat().
class CatPart {
 public:
  template <class T>
  CatPart(const T& value) {  // NOLINT: implicit, so that cat() takes what it is given
    if constexpr (std::same_as<T, char>) {
      kind_ = Kind::kChar;
      bits_ = static_cast<unsigned char>(value);
    } else if constexpr (std::floating_point<T>) {
      kind_ = Kind::kDouble;
      bits_ = std::bit_cast<uint64_t>(static_cast<double>(value));
    } else if constexpr (std::signed_integral<T>) {
      kind_ = Kind::kSigned;
      bits_ = static_cast<uint64_t>(int64_t{value});
    } else if constexpr (std::integral<T>) {
      kind_ = Kind::kUnsigned;
      bits_ = uint64_t{value};
    } else {
      const std::string_view text = value;
      text_ = text.data();
      bits_ = text.size();
    }
  }
  void append_to(std::string& out) const;

 private:
  enum class Kind : uint8_t { kText, kChar, kSigned, kUnsigned, kDouble };
  const char* text_ = nullptr;
  uint64_t bits_ = 0;  // of the number, or the length of the text
  Kind kind_ = Kind::kText;
};

/// Its arguments printed one after the other: text as it stands, whole numbers in decimal, others with six significant
/// digits, as printf's %g in the C locale. Cold: what leads here tells of an error, and is compiled out of the way.
[[gnu::cold]] std::string cat(std::initializer_list<CatPart> parts);
template <class... Args>
std::string cat(const Args&... args) {
  return cat({CatPart(args)...});
}

}  // namespace inferkit
