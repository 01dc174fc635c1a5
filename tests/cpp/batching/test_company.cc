#include <cmath>
#include <random>

#include "batching/company.h"
#include "batching/pace.h"
#include "test.h"

using namespace inferkit;

namespace {

constexpr Nanos kMicro = 1'000, kMilli = 1'000'000;

/// A batch goes.
void go(Pace& pace, Nanos now, const PaceOptions& options, const CostCurve& curve) {
  if (pace.went(now, options)) pace.renew(now, options, 64, curve);
}

auto linear(double fixed, double row) {  // microseconds
  return [=](int64_t n) {
    const auto took = static_cast<Nanos>((fixed + row * double(n)) * double(kMicro));
    return Forecast{took, took, took, true, true, true};
  };
}

/// As many as come at random, so many a second.
ComersWithin at_random(double rate) {
  ComersWithin out{};
  for (size_t i = 0; i < kSpans; ++i) out[i] = rate * double(kFirstSpan << i) * 1e-9;
  return out;
}

/// So many come within `span`, and nobody later.
ComersWithin all_within(Nanos span, double count) {
  ComersWithin out{};
  for (size_t i = 0; i < kSpans; ++i) out[i] = kFirstSpan << i >= span ? count : 0;
  return out;
}

}  // namespace

TEST(nobody_waits_for_those_who_come_at_random) {
  for (const double rate : {1.0, 30.0, 100.0, 300.0, 1e3, 1e4, 1e5}) {
    for (const double row : {0.0, 10.0, 300.0, 5'000.0}) {
      for (const int64_t rows : {1, 3, 10, 40}) {
        CHECK_EQ(worth_waiting(at_random(rate), rows, 64, false, linear(5'000, row)).span, 0);
        CHECK_EQ(worth_waiting(at_random(rate), rows, 64, true, linear(5'000, row)).span, 0);
      }
    }
  }
}

TEST(company_that_is_close_behind_is_waited_for) {
  // Fifteen others come within 400 us, and a run of any size takes 5 ms.
  const Gathering found = worth_waiting(all_within(400 * kMicro, 15), 1, 64, false, linear(5'000, 0));
  CHECK_EQ(found.span, 400 * kMicro);
  CHECK_EQ(found.rows, 15);
  // No more than fit.
  CHECK_EQ(worth_waiting(all_within(400 * kMicro, 15), 1, 8, false, linear(5'000, 0)).rows, 7);
  CHECK_EQ(worth_waiting(all_within(400 * kMicro, 15), 8, 8, false, linear(5'000, 0)).span, 0);
}

TEST(nobody_waits_where_it_does_not_pay) {
  const ComersWithin close = all_within(400 * kMicro, 15);
  CHECK_EQ(worth_waiting(close, 1, 64, false, linear(0, 5'000)).span, 0);   // each row costs its own
  CHECK_EQ(worth_waiting(close, 1, 64, false, linear(100, 0)).span, 0);     // it is over before they are there
  CHECK_EQ(worth_waiting(close, 60, 64, false, linear(5'000, 0)).span, 0);  // four more are not worth sixty's time
  CHECK_EQ(worth_waiting(all_within(4 * kMilli, 15), 1, 64, false, linear(5'000, 0)).span, 0);  // too late
  CHECK_EQ(worth_waiting(ComersWithin{}, 1, 64, false, linear(5'000, 0)).span, 0);
  CHECK_EQ(worth_waiting(close, 1, 64, false, [](int64_t) { return Forecast{}; }).span, 0);  // nothing is known
}

TEST(who_waits_goes_on_for_less) {
  const ComersWithin some = all_within(800 * kMicro, 1);
  CHECK_EQ(worth_waiting(some, 2, 64, false, linear(4'000, 0)).span, 0);
  CHECK_EQ(worth_waiting(some, 2, 64, true, linear(4'000, 0)).span, 800 * kMicro);
}

TEST(spans_hold_what_they_say) {
  CHECK_EQ(Companions::span_of(0), 0u);
  CHECK_EQ(Companions::span_of(kFirstSpan), 0u);
  CHECK_EQ(Companions::span_of(kFirstSpan + 1), 1u);
  for (size_t i = 1; i < kSpans; ++i) {
    CHECK_EQ(Companions::span_of(kFirstSpan << i), i);
    CHECK_EQ(Companions::span_of((kFirstSpan << i) + 1), i + 1);
  }
}

TEST(company_is_learnt_and_forgotten) {
  Companions company;
  Nanos now = kMilli;
  const auto cost = linear(5'000, 0);
  const auto round = [&](int others) {
    company.could_go(now, 1, 64, cost);
    for (int i = 1; i <= others; ++i) company.came(now + i * 20 * kMicro, 1);
    now += 20 * kMilli;
  };
  for (int i = 0; i < 10; ++i) round(7);
  CHECK_EQ(company.gathering().span, 0);  // too little has been seen
  for (int i = 0; i < 10; ++i) round(7);
  CHECK_EQ(company.gathering().span, 200 * kMicro);
  CHECK_EQ(company.gathering().rows, 7);
  round(0);  // one odd moment
  CHECK_EQ(company.gathering().span, 200 * kMicro);
  CHECK_EQ(company.gathering(40).span, 0);  // of other sizes nothing is known
  for (int i = 0; i < 100; ++i) round(0);
  CHECK_EQ(company.gathering().span, 0);
  round(1000);  // and one odd burst
  round(0);
  CHECK_EQ(company.gathering().span, 0);
}

TEST(company_of_random_arrivals_is_never_found) {
  std::mt19937_64 rng(11);
  for (const double each : {0.3, 1.0, 4.0}) {  // arrivals in the time of a run
    Companions company;
    Nanos now = kMilli;
    int waits = 0;
    for (int i = 0; i < 20'000; ++i) {
      company.could_go(now, 1, 64, linear(2'000, 0));
      for (double at = 0;;) {
        at += std::exponential_distribution(each / 2e6)(rng);
        if (at > 2e6) break;
        company.came(now + static_cast<Nanos>(at), 1);
      }
      now += 10 * kMilli;
      waits += company.gathering().span > 0;
    }
    CHECK(waits < 100);  // of 20,000
  }
}

TEST(a_pace_lets_all_go_until_it_knows) {
  CostCurve curve;
  Pace pace;
  CHECK_EQ(pace.next(50, 1), 50);
  pace.could_go(kMilli, 1, 64, curve);
  CHECK_EQ(pace.until(), 0);
  CHECK(!pace.would_wait(1));
}

TEST(a_pace_finds_how_many_rows_pay) {
  // 2 ms a row, whatever is beside it; what waits is always more than may go.
  CostCurve curve;
  Pace pace;
  Nanos now = kMilli;
  int tried = 0;
  constexpr int kRuns = 3000;
  for (int i = 0; i < kRuns; ++i) {
    const int64_t rows = pace.next(64, 1);
    const Nanos took = rows * 2 * kMilli;
    go(pace, now, {.sizes = true, .company = true}, curve);
    curve.learn(rows, took, now += took);
    tried += i >= kRuns / 2 && rows > 4;
  }
  CHECK(pace.pays() <= 4);
  CHECK(tried <= kRuns / 2 / 32);  // now and then, whether that is still so
  CHECK_EQ(pace.figures(now, 64, curve).pays, pace.pays());
  // Somebody whose request is larger goes in one piece.
  CHECK_EQ(pace.next(64, 20), 20);
  // Then batches become as cheap as single rows.
  for (int i = 0; i < 20'000; ++i) {
    const int64_t rows = pace.next(64, 1);
    go(pace, now, {.sizes = true, .company = true}, curve);
    curve.learn(rows, 2 * kMilli, now += 2 * kMilli);
  }
  CHECK_EQ(pace.next(64, 1), 64);
}

TEST(a_pace_of_another_model_lets_all_go_until_it_knows) {
  CostCurve curve;
  Pace pace;
  Nanos now = kMilli;
  for (int i = 0; i < 3000; ++i) {
    const int64_t rows = pace.next(64, 1);
    go(pace, now, {.sizes = true, .company = true}, curve);
    curve.learn(rows, rows * 2 * kMilli, now += rows * 2 * kMilli);
  }
  CHECK(pace.pays() <= 4);
  curve.forget();
  pace.forget();
  CHECK_EQ(pace.next(50, 1), 50);
  CHECK(!pace.would_wait(1) && pace.until() == 0);
}

TEST(one_slow_run_does_not_change_a_pace) {
  CostCurve curve;
  Pace pace;
  Nanos now = kMilli;
  const auto run = [&](Nanos row) {
    const int64_t rows = pace.next(64, 1);
    go(pace, now, {.sizes = true}, curve);
    curve.learn(rows, kMilli + rows * row, now += kMilli + rows * row);
  };
  for (int i = 0; i < 2000; ++i) run(20 * kMicro);
  CHECK_EQ(pace.next(64, 1), 64);  // a row costs less the more there are
  for (int i = 0; i < 500; ++i) {
    run(i % 50 == 7 ? 2 * kMilli : 20 * kMicro);
    CHECK_EQ(pace.next(64, 1), 64);
  }
}
