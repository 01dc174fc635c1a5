// Numbers as text, and text as numbers: the same in every locale.
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/dtype.h"

namespace inferkit {

/// The most that format_number writes.
inline constexpr size_t kMostNumberText = 32;

/// As Python and numpy, and so the reference implementation of Cast, write numbers: the fewest digits that are read
/// back as the same value of its type, as 0.1, 1.0, 1e-05 or (from 1e16 on) 1e+16; True and False. NaN, INF and -INF
/// are spelled as in the specification. Returns how much of `to`, which has room for kMostNumberText, was written.
template <class T>
size_t format_number(T value, char* to);

/// What a string says, blanks around it left out: "3.14", "+1E8", "-inf", "NaN" in any case; of whole numbers also
/// "100.5", cut off to 100; of bools True, False and numbers. What is too large for a float is infinite, what is too
/// small 0. Empty where it is no number, or none of T.
template <class T>
std::optional<T> parse_number(std::string_view text);

}  // namespace inferkit
