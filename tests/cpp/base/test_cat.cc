#include <cstdint>
#include <limits>
#include <string>

#include "base/cat.h"
#include "base/counted.h"
#include "test.h"

using namespace inferkit;

TEST(cat_takes_text_and_numbers) {
  const std::string owned = "b";
  CHECK_EQ(cat("a", owned, std::string_view("c"), 'd'), std::string("abcd"));
  CHECK_EQ(cat(), std::string());
  CHECK_EQ(cat(std::numeric_limits<int64_t>::min(), " ", std::numeric_limits<uint64_t>::max()),
           std::string("-9223372036854775808 18446744073709551615"));
  CHECK_EQ(cat(true, int8_t{-5}, uint8_t{7}, size_t{0}), std::string("1-570"));
  CHECK_EQ(cat(std::string_view("\0", 1)).size(), size_t{1});
}

// As printf("%g") gives them.
TEST(cat_gives_six_digits_of_a_float) {
  CHECK_EQ(cat(0.1, " ", 0.1f, " ", 1e6, " ", 1e5, " ", -2.5e-7), std::string("0.1 0.1 1e+06 100000 -2.5e-07"));
  CHECK_EQ(cat(1.0 / 3, " ", 100.0), std::string("0.333333 100"));
  CHECK_EQ(cat(std::numeric_limits<double>::denorm_min(), " ", std::numeric_limits<double>::lowest()),
           std::string("4.94066e-324 -1.79769e+308"));
  CHECK_EQ(cat(std::numeric_limits<double>::infinity()), std::string("inf"));
}

TEST(counted_says_how_many) {
  CHECK_EQ(counted(1, "row"), std::string("1 row"));
  CHECK_EQ(counted(size_t{0}, "row"), std::string("0 rows"));
  CHECK_EQ(counted(int64_t{-1}, "row"), std::string("-1 rows"));
  CHECK_EQ(counted(1, "axis", "axes") + counted(2, "axis", "axes"), std::string("1 axis2 axes"));
}
