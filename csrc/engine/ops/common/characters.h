// The characters of well-formed UTF-8.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace inferkit {

/// The one at `at`, which moves behind it.
inline uint32_t take_character(std::string_view text, size_t& at) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(text[i])); };
  const uint32_t lead = byte(at++);
  if (lead < 0x80) return lead;
  const int tail = lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
  uint32_t code = lead & (0x3fu >> tail);
  for (int i = 0; i < tail; ++i) code = code << 6 | (byte(at++) & 0x3f);
  return code;
}

/// Does a character begin at this byte?
inline bool begins_character(char byte) { return (static_cast<unsigned char>(byte) & 0xc0) != 0x80; }

inline uint32_t character_before(std::string_view text, size_t at) {
  do {
    --at;
  } while (!begins_character(text[at]));
  return take_character(text, at);
}

inline int64_t count_characters(std::string_view text) {
  int64_t count = 0;
  for (const char byte : text) count += begins_character(byte);
  return count;
}

}  // namespace inferkit
