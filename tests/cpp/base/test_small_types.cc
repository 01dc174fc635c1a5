#include <cmath>
#include <limits>

#include "base/small_types.h"
#include "test.h"

namespace inferkit {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr DType kFloats[] = {DType::kF8E4M3FN, DType::kF8E4M3FNUZ, DType::kF8E5M2, DType::kF8E5M2FNUZ, DType::kF4E2M1};

float value(DType t, int byte) { return small_float_values(t)[static_cast<size_t>(byte)]; }

// The tables of the papers and of the OCP specification.
TEST(the_ends_of_the_formats) {
  CHECK_EQ(value(DType::kF8E4M3FN, 0x7e), 448.0f);
  CHECK_EQ(value(DType::kF8E4M3FN, 0x08), 0x1p-6f);
  CHECK_EQ(value(DType::kF8E4M3FN, 0x01), 0x1p-9f);
  CHECK(std::isnan(value(DType::kF8E4M3FN, 0xff)));
  CHECK_EQ(value(DType::kF8E4M3FNUZ, 0x7f), 240.0f);
  CHECK_EQ(value(DType::kF8E4M3FNUZ, 0x01), 0x1p-10f);
  CHECK(std::isnan(value(DType::kF8E4M3FNUZ, 0x80)));
  CHECK_EQ(value(DType::kF8E5M2, 0x7b), 57344.0f);
  CHECK_EQ(value(DType::kF8E5M2, 0xfc), -kInfinity);
  CHECK(std::isnan(value(DType::kF8E5M2, 0x7d)));
  CHECK_EQ(value(DType::kF8E5M2, 0x01), 0x1p-16f);
  CHECK_EQ(value(DType::kF8E5M2FNUZ, 0x7f), 57344.0f);
  CHECK_EQ(value(DType::kF8E5M2FNUZ, 0x01), 0x1p-17f);
  CHECK_EQ(value(DType::kF8E8M0, 0), 0x1p-127f);
  CHECK_EQ(value(DType::kF8E8M0, 254), 0x1p127f);
  CHECK(std::isnan(value(DType::kF8E8M0, 255)));
  const float e2m1[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  for (int i = 0; i < 8; ++i) {
    CHECK_EQ(value(DType::kF4E2M1, i), e2m1[i]);
    CHECK_EQ(value(DType::kF4E2M1, i | 8 | 0xf0), -e2m1[i]);
  }
}

TEST(every_value_is_itself) {
  for (const DType t : kFloats) {
    const int count = t == DType::kF4E2M1 ? 16 : 256;
    for (int byte = 0; byte < count; ++byte) {
      const float v = value(t, byte);
      if (v == v) CHECK_EQ(int{to_small_float(t, v, false)}, byte);
    }
  }
  for (int byte = 0; byte < 255; ++byte) CHECK_EQ(int{to_power_of_two(value(DType::kF8E8M0, byte), false, {})}, byte);
}

// Between two neighbours the nearer one; in the middle the one whose last bit is 0.
TEST(rounds_to_nearest_even) {
  for (const DType t : kFloats) {
    const int count = t == DType::kF4E2M1 ? 8 : 128;
    for (int byte = 0; byte + 1 < count; ++byte) {
      const float low = value(t, byte), high = value(t, byte + 1);
      if (!std::isfinite(low) || !std::isfinite(high)) continue;
      const float middle = (low + high) / 2;
      CHECK_EQ(int{to_small_float(t, middle, true)}, byte + byte % 2);
      CHECK_EQ(int{to_small_float(t, std::nextafter(middle, low), true)}, byte);
      CHECK_EQ(int{to_small_float(t, std::nextafter(middle, high), true)}, byte + 1);
    }
  }
}

TEST(beyond_the_largest) {
  for (const float v : {1e6f, kInfinity, std::numeric_limits<float>::max()}) {
    CHECK_EQ(value(DType::kF8E4M3FN, to_small_float(DType::kF8E4M3FN, -v, true)), -448.0f);
    CHECK(std::isnan(value(DType::kF8E4M3FN, to_small_float(DType::kF8E4M3FN, v, false))));
    CHECK_EQ(value(DType::kF8E5M2, to_small_float(DType::kF8E5M2, v, true)), 57344.0f);
    CHECK_EQ(value(DType::kF8E5M2, to_small_float(DType::kF8E5M2, -v, false)), -kInfinity);
    CHECK_EQ(value(DType::kF8E5M2FNUZ, to_small_float(DType::kF8E5M2FNUZ, -v, true)), -57344.0f);
    CHECK(std::isnan(value(DType::kF8E4M3FNUZ, to_small_float(DType::kF8E4M3FNUZ, v, false))));
    CHECK_EQ(value(DType::kF4E2M1, to_small_float(DType::kF4E2M1, v, false)), 6.0f);
  }
  CHECK_EQ(int{to_small_float(DType::kF8E4M3FNUZ, -0.0f, true)}, 0);
  CHECK_EQ(int{to_small_float(DType::kF8E4M3FN, -0.0f, true)}, 0x80);
}

TEST(powers_of_two) {
  using enum PowerRounding;
  CHECK_EQ(int{to_power_of_two(1.5f, true, kNearest)}, 128);  // a tie goes up
  CHECK_EQ(int{to_power_of_two(1.4999f, true, kNearest)}, 127);
  CHECK_EQ(int{to_power_of_two(1.0001f, true, kUp)}, 128);
  CHECK_EQ(int{to_power_of_two(1.9999f, true, kDown)}, 127);
  CHECK_EQ(int{to_power_of_two(0, true, kUp)}, 0);
  CHECK_EQ(int{to_power_of_two(0, false, kNearest)}, 255);
  CHECK_EQ(int{to_power_of_two(kInfinity, true, kUp)}, 254);
  CHECK_EQ(int{to_power_of_two(kInfinity, false, kUp)}, 255);
  CHECK_EQ(int{to_power_of_two(std::numeric_limits<float>::max(), true, kUp)}, 254);
  CHECK_EQ(int{to_power_of_two(std::numeric_limits<float>::max(), false, kUp)}, 255);
  CHECK_EQ(int{to_power_of_two(-1, true, kUp)}, 255);
}

TEST(small_integers) {
  CHECK_EQ(small_integer(DType::kI4, 0xf8), -8);
  CHECK_EQ(small_integer(DType::kU4, 0xf8), 8);
  CHECK_EQ(small_integer(DType::kI2, 2), -2);
  CHECK_EQ(small_integer(DType::kU2, 6), 2);
  CHECK_EQ(int{to_small_integer(4, -1)}, 15);
  CHECK_EQ(int{to_small_integer(2, 7)}, 3);
}

}  // namespace
}  // namespace inferkit
