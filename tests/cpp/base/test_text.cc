#include "base/cat.h"
#include "base/text.h"
#include "test.h"

using namespace inferkit;

TEST(text_knows_utf8) {
  for (const char* good : {"", "plain", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf"}) {
    CHECK(is_utf8(good));
  }
  for (const char* bad : {"\x80", "\xc3", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "a\xff"}) {
    CHECK(!is_utf8(bad));
  }
  CHECK_EQ(utf8_length("\xe2\x82\xac!"), size_t{3});
  CHECK_EQ(utf8_length("\xe2\x82"), size_t{0});
}

TEST(text_quotes_what_a_file_says) {
  CHECK_EQ(quote("fc1"), std::string("'fc1'"));
  CHECK_EQ(quote(std::string_view("a\0b", 3)), std::string("'a\\x00b'"));
  CHECK_EQ(quote("\n\xff\xc3\xa9"), std::string("'\\x0a\\xff\xc3\xa9'"));
  CHECK(quote(std::string(1000, 'x')).size() < 200);
}

TEST(text_quotes_what_is_not_seen) {
  CHECK_EQ(quote("\xc2\x9b"
                 "2J"),
           std::string("'\\xc2\\x9b2J'"));  // C1: the start of a terminal's code
  CHECK_EQ(quote("\xe2\x80\xae"
                 "txt"),
           std::string("'\\xe2\\x80\\xaetxt'"));                               // from right to left
  CHECK_EQ(quote("\xe2\x80\xa8"), std::string("'\\xe2\\x80\\xa8'"));           // a line separator
  CHECK_EQ(quote("\xf3\xa0\x80\xa1"), std::string("'\\xf3\\xa0\\x80\\xa1'"));  // a tag
  CHECK_EQ(quote("\xe2\x82\xac\xf0\x9f\x98\x80"), std::string("'\xe2\x82\xac\xf0\x9f\x98\x80'"));
}

TEST(text_splits_into_pieces) {
  const auto joined = [](std::string_view text) {
    std::string out;
    for (const std::string_view piece : split(text, ',')) out += cat("[", piece, "]");
    return out;
  };
  CHECK_EQ(joined(""), std::string(""));
  CHECK_EQ(joined("a"), std::string("[a]"));
  CHECK_EQ(joined("a,,b"), std::string("[a][][b]"));
  CHECK_EQ(joined(",a,"), std::string("[][a]"));
}
