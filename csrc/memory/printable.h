// Names from untrusted files, made fit for a message.
#pragma once
#include <string>
#include <string_view>

namespace inferkit {

/// Control characters, a NUL above all, become '?'; what is long is cut.
inline std::string printable(std::string_view text) {
  constexpr size_t kLongest = 200;
  size_t length = text.size();
  if (length > kLongest) {
    length = kLongest;
    while (length > 0 && (static_cast<unsigned char>(text[length]) & 0xc0) == 0x80) --length;  // not inside a character
  }
  std::string out(text.substr(0, length));
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return length < text.size() ? out + "..." : out;
}

}  // namespace inferkit
