// Upper and lower case by Unicode's default mapping, which no locale changes.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace inferkit {

enum class LetterCase : uint8_t { kLower, kUpper };

/// How much longer text may become.
inline constexpr size_t kMostCaseGrowth = 3;

/// Well-formed UTF-8 in the other case, as Python's str.lower and str.upper, but that a sigma at the end of a word is
/// one like any other. Returns how much of `to`, which has room for kMostCaseGrowth times the text, was written.
size_t change_case(LetterCase to_case, std::string_view text, char* to);

}  // namespace inferkit
