// Unicode's classes of characters, by the names that RE2 has for them.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

namespace inferkit {

struct CharacterRange {
  uint32_t first, last;
};

/// The characters of a general category ("L", "Lu"), of a script in common use ("Greek"), or all ("Any"), in ascending
/// ranges; none where there is no such class here.
std::vector<CharacterRange> characters_of(std::string_view name);

}  // namespace inferkit
