// Text that comes from a file.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace inferkit {

/// The bytes of the well-formed UTF-8 character that `text`, which is not empty, starts with; 0 where there is none.
size_t utf8_length(std::string_view text);

/// Well-formed UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::string_view text);

/// 'text' in quotes for a message: what is not printable ASCII or valid UTF-8 is escaped, what is long is cut.
std::string quote(std::string_view text);

/// The pieces between separators; views into `text`. What a last separator ends is not followed by an empty piece.
std::vector<std::string_view> split(std::string_view text, char separator);

}  // namespace inferkit
