#include "memory/json.h"

#include "base/error.h"
#include "base/text.h"

namespace inferkit {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

void append_utf8(uint32_t code, std::string* out) {
  if (code < 0x80) {
    out->push_back(static_cast<char>(code));
  } else if (code < 0x800) {
    out->push_back(static_cast<char>(0xc0 | code >> 6));
    out->push_back(static_cast<char>(0x80 | (code & 0x3f)));
  } else if (code < 0x10000) {
    out->push_back(static_cast<char>(0xe0 | code >> 12));
    out->push_back(static_cast<char>(0x80 | (code >> 6 & 0x3f)));
    out->push_back(static_cast<char>(0x80 | (code & 0x3f)));
  } else {
    out->push_back(static_cast<char>(0xf0 | code >> 18));
    out->push_back(static_cast<char>(0x80 | (code >> 12 & 0x3f)));
    out->push_back(static_cast<char>(0x80 | (code >> 6 & 0x3f)));
    out->push_back(static_cast<char>(0x80 | (code & 0x3f)));
  }
}

}  // namespace

void JsonReader::fail(const std::string& what) const {
  throw Error(ErrorCode::kModel, cat(where_, ": ", what, " at byte ", at_, " of the JSON text"));
}

char JsonReader::peek() {
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c != ' ' && c != '\t' && c != '\n' && c != '\r') return c;
    ++at_;
  }
  return '\0';  // a NUL in the text reads the same, and is no more welcome
}

void JsonReader::expect(char c, const char* what) {
  if (peek() != c) fail(cat("expected ", what));
  ++at_;
}

void JsonReader::open(char bracket, const char* what) {
  expect(bracket, what);
  if (++depth_ > kMaxDepth) fail(cat("nested deeper than ", kMaxDepth));
}

bool JsonReader::closes(char bracket, bool first) {
  const char c = peek();
  if (c == bracket) {
    ++at_;
    --depth_;
    return true;
  }
  if (first) return false;
  if (c != ',') fail(cat("expected ',' or '", bracket, "'"));
  ++at_;
  return false;
}

void JsonReader::end() {
  peek();
  if (at_ != text_.size()) fail("expected nothing more");
}

uint64_t JsonReader::unsigned_integer() {
  if (!is_digit(peek())) fail("expected a non-negative integer");
  const bool zero = text_[at_] == '0';
  const size_t begin = at_;
  uint64_t value = 0;
  for (; at_ < text_.size() && is_digit(text_[at_]); ++at_) {
    if (__builtin_mul_overflow(value, uint64_t{10}, &value) ||
        __builtin_add_overflow(value, static_cast<uint64_t>(text_[at_] - '0'), &value)) {
      fail("expected an integer below 2^64");
    }
  }
  if (zero && at_ - begin > 1) fail("expected an integer without leading zeros");
  if (at_ < text_.size() && (text_[at_] == '.' || text_[at_] == 'e' || text_[at_] == 'E')) {
    fail("expected an integer without fraction or exponent");
  }
  return value;
}

void JsonReader::skip_number() {
  const auto digits = [&] {
    if (at_ >= text_.size() || !is_digit(text_[at_])) fail("expected a digit");
    while (at_ < text_.size() && is_digit(text_[at_])) ++at_;
  };
  const auto next_is = [&](char c) { return at_ < text_.size() && text_[at_] == c; };
  if (next_is('-')) ++at_;
  if (next_is('0')) {
    ++at_;
  } else {
    digits();
  }
  if (next_is('.')) {
    ++at_;
    digits();
  }
  if (next_is('e') || next_is('E')) {
    ++at_;
    if (next_is('+') || next_is('-')) ++at_;
    digits();
  }
}

void JsonReader::skip() {
  switch (const char c = peek()) {
    case '{':
      return object([&](const std::string&) { skip(); });
    case '[':
      return array([&] { skip(); });
    case '"':
      string();
      return;
    default:
      for (const std::string_view word : {"true", "false", "null"}) {
        if (text_.substr(at_).starts_with(word)) {
          at_ += word.size();
          return;
        }
      }
      if (c != '-' && !is_digit(c)) fail("expected a value");
      skip_number();
  }
}

std::string JsonReader::string() {
  expect('"', "a string");
  std::string out;
  while (true) {
    if (at_ >= text_.size()) fail("expected the end of a string");
    const auto c = static_cast<unsigned char>(text_[at_]);
    if (c == '"') {
      ++at_;
      return out;
    }
    if (c == '\\') {
      ++at_;
      read_escape(&out);
    } else if (c < 0x20) {
      fail("a string holds a control character; expected an escape");
    } else if (c < 0x80) {
      out.push_back(static_cast<char>(c));
      ++at_;
    } else {
      read_utf8(&out);
    }
  }
}

void JsonReader::read_escape(std::string* out) {
  if (at_ >= text_.size()) fail("expected an escape");
  const char c = text_[at_++];
  switch (c) {
    case '"':
    case '\\':
    case '/':
      out->push_back(c);
      return;
    case 'b':
      out->push_back('\b');
      return;
    case 'f':
      out->push_back('\f');
      return;
    case 'n':
      out->push_back('\n');
      return;
    case 'r':
      out->push_back('\r');
      return;
    case 't':
      out->push_back('\t');
      return;
    case 'u':
      break;
    default:
      fail("a string holds an unknown escape");
  }
  uint32_t code = read_hex4();
  if (code >= 0xdc00 && code < 0xe000) fail("a low surrogate without its high one");
  if (code >= 0xd800 && code < 0xdc00) {
    if (!text_.substr(at_).starts_with("\\u")) fail("a high surrogate without its low one");
    at_ += 2;
    const uint32_t low = read_hex4();
    if (low < 0xdc00 || low >= 0xe000) fail("a high surrogate without its low one");
    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
  }
  append_utf8(code, out);
}

uint32_t JsonReader::read_hex4() {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i, ++at_) {
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    uint32_t digit = 0;
    if (is_digit(c)) {
      digit = static_cast<uint32_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      digit = static_cast<uint32_t>(c - 'a' + 10);
    } else if (c >= 'A' && c <= 'F') {
      digit = static_cast<uint32_t>(c - 'A' + 10);
    } else {
      fail("expected four hexadecimal digits");
    }
    value = value << 4 | digit;
  }
  return value;
}

// Copies one character of two to four bytes.
void JsonReader::read_utf8(std::string* out) {
  const size_t length = utf8_length(text_.substr(at_));
  if (length == 0) fail("invalid UTF-8");
  out->append(text_.substr(at_, length));
  at_ += length;
}

}  // namespace inferkit
