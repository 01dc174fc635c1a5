#include <vector>

#include "check_error.h"
#include "memory/json.h"

using namespace inferkit;

namespace {
constexpr auto kModel = ErrorCode::kModel;

void skip_all(std::string_view text) {
  JsonReader json(text, "test");
  json.skip();
  json.end();
}
bool accepts(std::string_view text) {
  try {
    skip_all(text);
    return true;
  } catch (const Error&) {
    return false;
  }
}
std::string read_string(std::string_view text) {
  JsonReader json(text, "test");
  std::string out = json.string();
  json.end();
  return out;
}
uint64_t read_integer(std::string_view text) {
  JsonReader json(text, "test");
  const uint64_t out = json.unsigned_integer();
  json.end();
  return out;
}
}  // namespace

// After the cases of JSONTestSuite (y_ and n_), by their meaning.
TEST(json_accepts_what_the_grammar_allows) {
  for (const char* text : {"{}",          "[]",       "null",        "true",
                           "false",       "0",        "-0",          "-1",
                           "10",          "1.5",      "1e5",         "1E+5",
                           "1.25e-3",     "\"\"",     " [ 1 , 2 ] ", "{\"a\":{\"b\":[]}}",
                           "\t\n\r {}\n", "[[[[]]]]", "\"\\u0000\"", "{\"a\":1,\"a\":2}",
                           "[0e1]"}) {
    CHECK(accepts(text));
    if (!accepts(text)) std::cerr << "  refused: " << text << "\n";
  }
}

TEST(json_refuses_what_the_grammar_forbids) {
  for (const char* text :
       {"",        " ",         "{",          "}",           "[",      "]",        "[1,]",    "[,1]",  "[1 2]",
        "{\"a\"}", "{\"a\":}",  "{\"a\":1,}", "{,}",         "{a:1}",  "{'a':1}",  "{1:1}",   "01",    "-01",
        "+1",      ".5",        "1.",         "1.e1",        "1e",     "1e+",      "-",       "--1",   "0x1",
        "NaN",     "Infinity",  "-Infinity",  "nul",         "True",   "[] []",    "{}x",     "\"",    "\"a",
        "\"\\",    "\"\\x\"",   "\"\\u12\"",  "\"\\u12g4\"", "\"\t\"", "\"\n\"",   "// c\n1", "/**/1", "\xef\xbb\xbf{}",
        "[1}",     "{\"a\":1]", "1 2",        "\"a\" \"b\"", "\v1",    "[\"a\":1]"}) {
    CHECK(!accepts(text));
    if (accepts(text)) std::cerr << "  accepted: " << text << "\n";
  }
  CHECK(!accepts(std::string_view("1\0", 2)));
  CHECK(!accepts(std::string_view("\0", 1)));
  CHECK(!accepts(std::string_view("\"a\0b\"", 5)));
}

TEST(json_strings) {
  CHECK_EQ(read_string(R"("a\"\\\/\b\f\n\r\tz")"), "a\"\\/\b\f\n\r\tz");
  CHECK_EQ(read_string(R"("\u0041\u00e9\u20AC\ud83d\ude00")"), "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
  CHECK_EQ(read_string("\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xf4\x8f\xbf\xbf\""),
           "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xf4\x8f\xbf\xbf");
  CHECK_EQ(read_string(R"("\u0000")"), std::string(1, '\0'));
  for (const char* text : {R"("\ud800")", R"("\udc00")", R"("\ud800\u0041")", R"("\ud800x")", R"("\ude00\ud83d")"}) {
    CHECK_MESSAGE(kModel, read_string(text), "surrogate");
  }
}

TEST(json_refuses_invalid_utf8) {
  for (const char* bytes :
       {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc3", "\xc3(", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xe2\x82",
        "\xe2(\xac", "\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xf0\x9f\x98",
        "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xfe", "\xff"}) {
    CHECK_MESSAGE(kModel, read_string(std::string("\"") + bytes + "\""), "UTF-8");
  }
}

TEST(json_integers) {
  CHECK_EQ(read_integer("0"), 0u);
  CHECK_EQ(read_integer(" 42 "), 42u);
  CHECK_EQ(read_integer("18446744073709551615"), 18446744073709551615u);
  CHECK_MESSAGE(kModel, read_integer("18446744073709551616"), "2^64");
  CHECK_MESSAGE(kModel, read_integer("99999999999999999999999"), "2^64");
  for (const char* text : {"-1", "-0", "1.0", "1e2", "01", "00", "\"1\"", "[]", "", "true"}) {
    CHECK_MESSAGE(kModel, read_integer(text), "expected");
  }
}

TEST(json_depth_is_bounded) {
  const auto nested = [](int depth) { return std::string(static_cast<size_t>(depth), '['); };
  CHECK(accepts(nested(32) + std::string(32, ']')));
  CHECK_MESSAGE(kModel, skip_all(nested(33) + std::string(33, ']')), "nested");
  CHECK_MESSAGE(kModel, skip_all(nested(10'000'000)), "nested");
}

TEST(json_object_and_array_order) {
  JsonReader json(R"({"b": [1, 2], "a": [3]})", "test");
  std::string seen;
  json.object([&](const std::string& key) {
    seen += key;
    json.array([&] { seen += std::to_string(json.unsigned_integer()); });
  });
  json.end();
  CHECK_EQ(seen, "b12a3");
}

TEST(json_message_says_where) { CHECK_MESSAGE(kModel, skip_all("[1, x]"), "test: expected a value at byte 4"); }
