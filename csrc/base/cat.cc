#include "base/cat.h"

#include <charconv>

namespace inferkit {
namespace {

template <class... Format>
void append_chars(std::string& out, Format... format) {
  char digits[32];  // the longest are "-9223372036854775808" and "-1.23457e-308"
  out.append(digits, std::to_chars(digits, digits + sizeof digits, format...).ptr);
}

}  // namespace

void append_number(std::string& out, int64_t number) { append_chars(out, number); }
void append_number(std::string& out, uint64_t number) { append_chars(out, number); }
void append_number(std::string& out, double number) { append_chars(out, number, std::chars_format::general, 6); }

}  // namespace inferkit
