#include "base/text.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <utility>

namespace inferkit {
namespace {

/// Beyond ASCII: what a terminal obeys (C1), what breaks lines, and what is not seen or turns the direction around.
constexpr std::pair<char32_t, char32_t> kHidden[] = {
    {0x80, 0x9f},     {0xad, 0xad},     {0x61c, 0x61c},   {0x180e, 0x180e}, {0x200b, 0x200f},
    {0x2028, 0x202e}, {0x2060, 0x206f}, {0xfeff, 0xfeff}, {0xfff9, 0xfffb}, {0xe0000, 0xe007f},
};

/// A well-formed character of `n` bytes.
bool is_hidden(std::string_view bytes, size_t n) {
  if (n == 1) return static_cast<uint8_t>(bytes[0]) < 0x20 || bytes[0] == 0x7f;
  char32_t code = static_cast<uint8_t>(bytes[0]) & (0x7fu >> n);
  for (size_t i = 1; i < n; ++i) code = code << 6 | (static_cast<uint8_t>(bytes[i]) & 0x3fu);
  return std::any_of(std::begin(kHidden), std::end(kHidden),
                     [&](const auto& range) { return code >= range.first && code <= range.second; });
}

}  // namespace

size_t utf8_length(std::string_view s) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(s[i]); };
  const auto continues = [&](size_t i, uint8_t low = 0x80, uint8_t high = 0xbf) {
    return i < s.size() && at(i) >= low && at(i) <= high;
  };
  const uint8_t lead = at(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return continues(1) ? 2 : 0;
  if (lead >= 0xe0 && lead <= 0xef) {
    const bool second = continues(1, lead == 0xe0 ? 0xa0 : 0x80, lead == 0xed ? 0x9f : 0xbf);
    return second && continues(2) ? 3 : 0;
  }
  if (lead >= 0xf0 && lead <= 0xf4) {
    const bool second = continues(1, lead == 0xf0 ? 0x90 : 0x80, lead == 0xf4 ? 0x8f : 0xbf);
    return second && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t n = utf8_length(text);
    if (n == 0) return false;
    text.remove_prefix(n);
  }
  return true;
}

std::string quote(std::string_view text) {
  constexpr size_t kMaxShown = 120;
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "'";
  while (!text.empty()) {
    if (out.size() > kMaxShown) return out + "...'";
    const size_t n = utf8_length(text);
    const bool hidden = n == 0 || is_hidden(text, n);
    for (const char c : text.substr(0, std::max<size_t>(n, 1))) {
      const auto byte = static_cast<uint8_t>(c);
      if (hidden) {
        out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
      } else {
        out += c;
      }
    }
    text.remove_prefix(std::max<size_t>(n, 1));
  }
  return out + "'";
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const size_t end = text.find(separator);
    out.push_back(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return out;
}

}  // namespace inferkit
