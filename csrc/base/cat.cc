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

void CatPart::append_to(std::string& out) const {
  switch (kind_) {
    case Kind::kText:
      out.append(text_, bits_);
      return;
    case Kind::kChar:
      out.push_back(static_cast<char>(bits_));
      return;
    case Kind::kSigned:
      return append_chars(out, static_cast<int64_t>(bits_));
    case Kind::kUnsigned:
      return append_chars(out, bits_);
    case Kind::kDouble:
      return append_chars(out, std::bit_cast<double>(bits_), std::chars_format::general, 6);
  }
}

std::string cat(std::initializer_list<CatPart> parts) {
  std::string out;
  for (const CatPart& part : parts) part.append_to(out);
  return out;
}

}  // namespace inferkit
