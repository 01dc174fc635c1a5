#include <cmath>
#include <limits>
#include <random>

#include "batching/pays.h"
#include "test.h"

using namespace inferkit;

namespace {

constexpr double kMicro = 1'000;

/// Runs that take `fixed` and `row` microseconds a row, up to `seen` rows of which several have been.
auto linear(double fixed, double row, int64_t seen = std::numeric_limits<int64_t>::max()) {
  return [=](int64_t n) {
    const auto took = static_cast<Nanos>((fixed + row * double(n)) * kMicro);
    return Forecast{took, took, took, n <= seen, true, n <= seen};
  };
}

int64_t pays(double fixed, double row, int64_t most = 64, int64_t before = 64) {
  return rows_that_pay(most, before, linear(fixed, row));
}

}  // namespace

TEST(all_rows_pay_where_more_are_cheaper) {
  CHECK_EQ(pays(5'000, 0), 64);
  CHECK_EQ(pays(5'000, 100), 64);
  CHECK_EQ(pays(0, 1), 64);  // cheap rows: the hand-over is what costs
}

TEST(no_more_rows_pay_than_make_them_cheaper) {
  CHECK_EQ(pays(0, 20'000), 1);  // 20 ms each, alone or not
  CHECK(pays(0, 1'000) <= 6);
  CHECK(pays(2'000, 20'000) >= 4 && pays(2'000, 20'000) <= 8);
  CHECK_EQ(pays(0, 20'000, 1, 1), 1);
  CHECK_EQ(pays(0, 20'000, 100, 100), 1);
}

// By its definition, for many costs: what it says is nearly as cheap as the best, and about half of it is not.
TEST(what_pays_is_nearly_the_cheapest_and_no_larger_than_that) {
  std::mt19937 rng(7);
  for (int round = 0; round < 2000; ++round) {
    const double fixed = std::uniform_real_distribution(0.0, 5'000.0)(rng);
    const double row = std::uniform_real_distribution(50.0, 3'000.0)(rng);
    const auto most = std::uniform_int_distribution<int64_t>(1, 200)(rng);
    const auto each = [&](int64_t n) { return (100 + fixed + row * double(n)) / double(n); };
    const int64_t found = pays(fixed, row, most, most);
    CHECK(found >= 1 && found <= most);
    CHECK(each(found) <= 1.021 * each(most));
    if (found > 2) CHECK(each(found / 2) > 1.019 * each(most));
  }
}

TEST(what_nobody_has_seen_is_no_bound) {
  CHECK_EQ(rows_that_pay(64, 64, linear(0, 20'000, 0)), 64);  // nothing at all
  CHECK_EQ(rows_that_pay(64, 64, linear(0, 20'000, 1)), 64);  // single rows: more may be cheaper
  CHECK_EQ(rows_that_pay(64, 64, linear(0, 20'000, 2)), 1);
}

TEST(what_pays_does_not_go_back_and_forth) {
  // Measured again and again, within 2%: it settles, and stays.
  std::mt19937 rng(5);
  int64_t before = 64;
  int changes = 0;
  for (int round = 0; round < 500; ++round) {
    const int64_t now = rows_that_pay(64, before, [&](int64_t n) {
      const double noise = std::uniform_real_distribution(0.99, 1.01)(rng);
      const auto took = static_cast<Nanos>((2'000 + 1'000 * double(n)) * kMicro * noise);
      return Forecast{took, took, took, true, true, true};
    });
    changes += round > 0 && now != before;
    before = now;
  }
  CHECK(changes <= 3);
}

TEST(what_pays_follows_a_machine_that_has_changed) {
  CHECK_EQ(pays(5'000, 100, 64, 1), 64);  // it was 1: far too few by now
  CHECK_EQ(pays(0, 20'000, 64, 64), 1);   // it was 64
  CHECK_EQ(pays(0, 20'000, 64, 2), 1);    // a little more than needed is not kept for that
  CHECK_EQ(pays(600, 20'000, 64, 64), 2);
  CHECK_EQ(pays(600, 20'000, 64, 1), 1);  // one is enough by a narrow margin, and stays what it was
}

TEST(sizes_are_tried_that_nobody_knows) {
  CHECK_EQ(rows_to_try(64, 64, linear(0, 1'000)), 0);  // all are known
  CHECK_EQ(rows_to_try(64, 64, linear(0, 1'000, 0)), 16);
  CHECK_EQ(rows_to_try(64, 64, [](int64_t n) { return Forecast{1, 1, 1, n > 4, true, n > 4}; }), 4);
  CHECK_EQ(rows_to_try(64, 64, [](int64_t n) { return Forecast{1, 1, 1, n > 1, true, n > 1}; }), 1);
  CHECK_EQ(rows_to_try(64, 4, linear(0, 1'000)), 8);    // whether 4 is still enough
  CHECK_EQ(rows_to_try(64, 48, linear(0, 1'000)), 64);  // no more than may be
  CHECK_EQ(rows_to_try(1, 1, linear(0, 1'000, 0)), 0);
}
