#include "engine/ops/common/text_number.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

namespace inferkit {
namespace {

size_t write(std::string_view text, char* to) {
  std::memcpy(to, text.data(), text.size());
  return text.size();
}

/// "d.ddde[+-]dd" with as few digits as tell `value` from its neighbours.
template <class T>
std::string_view shortest(T value, char (&room)[kMostNumberText]) {
  return {room, std::to_chars(room, room + sizeof(room), value, std::chars_format::scientific).ptr};
}
/// The same of a type with fewer bits, whose values float holds.
template <class T, class Round>
std::string_view shortest_half(T value, const Round& round, char (&room)[kMostNumberText]) {
  const float wide = to_float(value);
  const float ties = std::nextafter(wide, std::copysign(std::numeric_limits<float>::infinity(), wide));
  for (int digits = 0; digits < 8; ++digits) {
    for (const float from : {wide, ties}) {  // the other digit where two are as close
      const char* end = std::to_chars(room, room + sizeof(room), from, std::chars_format::scientific, digits).ptr;
      float back = 0;
      std::from_chars(room, end, back);
      if (round(back).bits == value.bits) return {room, end};
    }
  }
  return shortest(wide, room);
}

/// `scientific`, which says `value`, with the point where it belongs, unless that is far away.
size_t place_point(std::string_view scientific, double value, char* to) {
  const char* const begin = to;
  if (scientific.front() == '-') {
    *to++ = '-';
    scientific.remove_prefix(1);
  }
  const size_t e = scientific.find('e');
  char digits[kMostNumberText];
  size_t count = 0;
  for (const char c : scientific.substr(0, e)) {
    if (c != '.') digits[count++] = c;
  }
  while (count > 1 && digits[count - 1] == '0') --count;
  int exponent = 0;
  const char* from = scientific.data() + e + 1;
  std::from_chars(*from == '+' ? from + 1 : from, scientific.data() + scientific.size(), exponent);
  constexpr double kLeast = 1e-4, kMost = 1e16;
  if (value != 0 && (std::abs(value) < kLeast || std::abs(value) >= kMost)) {
    *to++ = digits[0];
    if (count > 1) *to++ = '.';
    to += write({digits + 1, count - 1}, to);
    to += write(scientific.substr(e), to);
    return static_cast<size_t>(to - begin);
  }
  for (int i = std::min(exponent, 0); i <= std::max(exponent, 0) || i < static_cast<int>(count); ++i) {
    *to++ = i >= 0 && i < static_cast<int>(count) ? digits[i] : '0';
    if (i == exponent) *to++ = '.';
  }
  if (to[-1] == '.') *to++ = '0';
  return static_cast<size_t>(to - begin);
}

bool blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

/// `lower` is in lower case.
bool says(std::string_view text, std::string_view lower) {
  if (text.size() != lower.size()) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if ((c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c) != lower[i]) return false;
  }
  return true;
}

/// Of a number that is out of range: is it too large, rather than too close to zero?
bool too_large(std::string_view digits) {
  const size_t e = digits.find_first_of("eE");
  // By the first digit that counts; an exponent that no integer holds decides alone.
  int64_t first = 0, exponent = 0;
  bool found = false, point = false;
  for (const char c : digits.substr(0, e)) {
    if (c == '.') {
      point = true;
    } else {
      found = found || c != '0';
      first += found ? !point : -static_cast<int64_t>(point);
    }
  }
  if (e == std::string_view::npos) return first > 0;
  std::string_view power = digits.substr(e + 1);
  const bool negative = power.front() == '-';
  if (power.front() == '+') power.remove_prefix(1);
  const auto result = std::from_chars(power.data(), power.data() + power.size(), exponent);
  if (result.ec != std::errc()) return !negative;
  return exponent > -first;
}

template <class T>
std::optional<T> parse_float(std::string_view text) {
  text = trimmed(text);
  const bool negative = !text.empty() && text.front() == '-';
  if (!text.empty() && (negative || text.front() == '+')) text.remove_prefix(1);
  const auto signed_value = [&](T value) { return negative ? -value : value; };
  if (says(text, "inf") || says(text, "infinity")) return signed_value(std::numeric_limits<T>::infinity());
  if (says(text, "nan")) return std::numeric_limits<T>::quiet_NaN();
  if (text.empty() || !((text.front() >= '0' && text.front() <= '9') || text.front() == '.')) return std::nullopt;
  T value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end != text.data() + text.size() || error == std::errc::invalid_argument) return std::nullopt;
  if (error == std::errc::result_out_of_range) {
    value = too_large(text) ? std::numeric_limits<T>::infinity() : T{0};
  }
  return signed_value(value);
}

template <class T>
std::optional<T> parse_whole(std::string_view text) {
  text = trimmed(text);
  std::string_view digits = text;
  if (!digits.empty() && digits.front() == '+') digits.remove_prefix(1);
  T value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error == std::errc() && end == digits.data() + digits.size()) {
    if (digits.size() == text.size() || digits.front() != '-') return value;
    return std::nullopt;
  }
  const std::optional<double> real = parse_float<double>(text);
  if (!real || !std::isfinite(*real)) return std::nullopt;
  const double whole = std::trunc(*real);
  // Both bounds are exact: powers of two, one of them beyond T.
  const double most = std::ldexp(1.0, std::numeric_limits<T>::digits);
  if (whole >= most || whole < (std::is_signed_v<T> ? -most : 0.0)) return std::nullopt;
  return static_cast<T>(whole);
}

}  // namespace

template <class T>
size_t format_number(T value, char* to) {
  if constexpr (std::is_same_v<T, bool>) {
    return write(value ? "True" : "False", to);
  } else if constexpr (std::is_integral_v<T>) {
    return static_cast<size_t>(std::to_chars(to, to + kMostNumberText, value).ptr - to);
  } else {
    double wide = 0;
    if constexpr (std::is_floating_point_v<T>)
      wide = static_cast<double>(value);
    else
      wide = static_cast<double>(to_float(value));
    if (std::isnan(wide)) return write("NaN", to);
    if (std::isinf(wide)) return write(wide < 0 ? "-INF" : "INF", to);
    char room[kMostNumberText];
    if constexpr (std::is_same_v<T, Half>)
      return place_point(shortest_half(value, to_half, room), wide, to);
    else if constexpr (std::is_same_v<T, BFloat16>)
      return place_point(shortest_half(value, to_bfloat16, room), wide, to);
    else
      return place_point(shortest(value, room), wide, to);
  }
}

template <class T>
std::optional<T> parse_number(std::string_view text) {
  if constexpr (std::is_same_v<T, bool>) {
    const std::string_view word = trimmed(text);
    if (says(word, "true")) return true;
    if (says(word, "false")) return false;
    const std::optional<double> number = parse_float<double>(text);
    return number ? std::optional(*number != 0) : std::nullopt;
  } else if constexpr (std::is_integral_v<T>) {
    return parse_whole<T>(text);
  } else if constexpr (std::is_floating_point_v<T>) {
    return parse_float<T>(text);
  } else {
    const std::optional<float> wide = parse_float<float>(text);
    if (!wide) return std::nullopt;
    if constexpr (std::is_same_v<T, Half>)
      return to_half(*wide);
    else
      return to_bfloat16(*wide);
  }
}

#define INFERKIT_NUMBER(type)                 \
  template size_t format_number(type, char*); \
  template std::optional<type> parse_number(std::string_view)
INFERKIT_NUMBER(float);
INFERKIT_NUMBER(double);
INFERKIT_NUMBER(Half);
INFERKIT_NUMBER(BFloat16);
INFERKIT_NUMBER(int8_t);
INFERKIT_NUMBER(int16_t);
INFERKIT_NUMBER(int32_t);
INFERKIT_NUMBER(int64_t);
INFERKIT_NUMBER(uint8_t);
INFERKIT_NUMBER(uint16_t);
INFERKIT_NUMBER(uint32_t);
INFERKIT_NUMBER(uint64_t);
INFERKIT_NUMBER(bool);
#undef INFERKIT_NUMBER

}  // namespace inferkit
