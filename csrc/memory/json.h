// A strict JSON reader that builds no tree: the caller says what it expects next. One pass, and no memory of its own
// beyond the string being read, whatever the text holds.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace inferkit {

/// RFC 8259 with valid UTF-8 and paired surrogates required; nesting at most kMaxDepth. Every violation is an
/// Error(kModel) that says what was expected, and where.
class JsonReader {
 public:
  static constexpr int kMaxDepth = 32;

  JsonReader(std::string_view text, std::string where) : text_(text), where_(std::move(where)) {}

  /// Reads an object; calls on_member(std::string key) for each member, and that must read the value. Duplicate keys
  /// are the caller's to notice.
  template <class F>
  void object(F on_member) {
    open('{', "an object");
    for (bool first = true; !closes('}', first); first = false) {
      std::string key = string();
      expect(':', "':' after an object's key");
      on_member(std::move(key));
    }
  }
  /// Reads an array; calls on_element() for each element, and that must read it.
  template <class F>
  void array(F on_element) {
    open('[', "an array");
    for (bool first = true; !closes(']', first); first = false) on_element();
  }
  std::string string();
  /// A number without sign, fraction or exponent that fits 64 bits.
  uint64_t unsigned_integer();
  /// Reads a value of any kind and forgets it.
  void skip();
  /// Checks that nothing but white space is left.
  void end();

  [[noreturn]] void fail(const std::string& what) const;

 private:
  char peek();  // the next character that is not white space; '\0' at the end
  void open(char bracket, const char* what);
  bool closes(char bracket, bool first);
  void expect(char c, const char* what);
  void skip_number();
  void read_escape(std::string* out);
  uint32_t read_hex4();
  void read_utf8(std::string* out);

  std::string_view text_;
  std::string where_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace inferkit
