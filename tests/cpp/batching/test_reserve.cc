#include <random>

#include "batching/reserve.h"
#include "test.h"

using namespace inferkit;

TEST(reserve_of_those_in_time_is_nothing) {
  Reserve reserve;
  for (int i = 0; i < 1000; ++i) reserve.learn(false);
  CHECK_EQ(reserve.part(), 0);
}

TEST(reserve_grows_with_the_late_and_has_a_bound) {
  Reserve reserve;
  double before = 0;
  for (int i = 0; i < 20; ++i) {
    reserve.learn(true);
    CHECK(reserve.part() > before);
    before = reserve.part();
  }
  for (int i = 0; i < 1000; ++i) reserve.learn(true);
  CHECK(reserve.part() <= 1.0 / 3);
  const double most = reserve.part();
  // A third is 85 steps of 1/256, and each in time takes back a 1024th of one: 87,381 of them.
  for (int i = 0; i < 50'000; ++i) reserve.learn(false);
  CHECK(reserve.part() < most && reserve.part() > 0);
  for (int i = 0; i < 50'000; ++i) reserve.learn(false);
  CHECK_EQ(reserve.part(), 0);
}

// Who needs more of his time than is kept back is late: it comes to rest where one in a thousand does.
TEST(reserve_comes_to_rest_where_one_in_a_thousand_is_late) {
  Reserve reserve;
  std::mt19937 random(5);
  std::exponential_distribution<double> needed(40);  // 0.173 suffices for all but one in a thousand
  int late = 0;
  constexpr int kLearning = 100'000, kCounted = 1'000'000;
  for (int i = 0; i < kLearning + kCounted; ++i) {
    const bool is_late = needed(random) > reserve.part();
    reserve.learn(is_late);
    late += i >= kLearning && is_late;
  }
  CHECK(late > kCounted / 2000 && late < kCounted / 500);
  CHECK(reserve.part() > 0.1 && reserve.part() < 0.25);
}
