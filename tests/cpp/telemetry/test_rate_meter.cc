#include <cmath>

#include "telemetry/rate_meter.h"
#include "test.h"

using namespace inferkit;

namespace {
constexpr Nanos kSecond = 1'000'000'000;
bool near(double a, double b) { return std::abs(a - b) <= 1e-9 * std::max(1.0, std::abs(b)); }
}  // namespace

TEST(rate_meter_since_the_start_while_young) {
  RateMeter meter(5 * kSecond);
  CHECK(near(meter.per_second(5 * kSecond), 0));
  meter.add(5 * kSecond, 100);
  CHECK(near(meter.per_second(7 * kSecond), 50));
}

TEST(rate_meter_forgets_what_is_old) {
  RateMeter meter(0);
  for (Nanos t = 0; t < 60 * kSecond; t += kSecond / 100) meter.add(t);
  CHECK(std::abs(meter.per_second(60 * kSecond - 1) - 100) < 0.2);
  CHECK(near(meter.per_second(200 * kSecond), 0));
  meter.add(200 * kSecond, 18);
  CHECK(near(meter.per_second(201 * kSecond), 2));
}
