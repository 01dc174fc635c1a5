#include <cmath>
#include <thread>

#include "telemetry/history.h"
#include "test.h"

using namespace inferkit;

namespace {
constexpr Nanos kSecond = 1'000'000'000;
bool near(double a, double b) { return std::abs(a - b) <= 1e-9 * std::max(1.0, std::abs(b)); }

struct Rig {
  explicit Rig(Nanos start) : history(start, {&counter}, {&histogram}) {}
  void event(Nanos now, int64_t value) {
    history.tick(now);
    counter.add();
    histogram.record(value);
  }
  uint64_t count(Nanos now, int seconds) { return history.window(now, seconds).counts[0]; }

  Counter counter;
  Histogram histogram;
  History history;
};
}  // namespace

TEST(history_covers_no_more_than_its_life) {
  Rig rig(5 * kSecond);
  CHECK(near(rig.history.window(5 * kSecond, 10).seconds, 0));
  rig.event(5 * kSecond, 1);
  CHECK(near(rig.history.window(7 * kSecond, 10).seconds, 2));
  CHECK_EQ(rig.count(7 * kSecond, 10), 1u);
}

TEST(history_windows_are_whole_seconds_and_the_one_that_runs) {
  Rig rig(0);
  for (Nanos t = 0; t < 100 * kSecond; t += kSecond / 10) rig.event(t, 1);
  const Nanos now = 100 * kSecond - kSecond / 2;
  for (const int seconds : {1, 10, 60}) {
    const Window window = rig.history.window(now, seconds);
    CHECK(near(window.seconds, seconds + 0.5));
    CHECK_EQ(window.counts[0], uint64_t(seconds) * 10 + 10);  // the running second has had all of its ten
    CHECK_EQ(window.histograms[0].count(), window.counts[0]);
  }
}

TEST(history_forgets_what_is_old) {
  Rig rig(0);
  for (int i = 0; i < 7; ++i) rig.event(kSecond / 2, 1);
  CHECK_EQ(rig.count(kSecond, 1), 7u);
  CHECK_EQ(rig.count(2 * kSecond, 1), 0u);
  CHECK_EQ(rig.count(10 * kSecond, 10), 7u);
  CHECK_EQ(rig.count(11 * kSecond, 10), 0u);
  CHECK_EQ(rig.count(60 * kSecond, 60), 7u);
  CHECK_EQ(rig.count(61 * kSecond, 60), 0u);
}

// Nobody was there to end the second in which they happened: they must not count as new when the next event comes.
TEST(history_events_before_a_pause_keep_their_second) {
  Rig rig(0);
  for (int i = 0; i < 5; ++i) rig.event(kSecond / 2, 1);
  rig.event(30 * kSecond, 1);
  CHECK_EQ(rig.count(30 * kSecond, 10), 1u);
  CHECK_EQ(rig.count(30 * kSecond, 60), 6u);
}

TEST(history_quantiles_are_those_of_the_window) {
  Rig rig(0);
  for (int i = 0; i < 100; ++i) rig.event(kSecond / 2, 1'000'000);
  for (int i = 0; i < 100; ++i) rig.event(20 * kSecond, 1000 + i);
  const HistogramSnapshot recent = rig.history.window(20 * kSecond, 10).histograms[0];
  CHECK_EQ(recent.count(), 100u);
  CHECK(std::abs(double(recent.quantile(0.5)) - 1050) < 0.01 * 1050);
  CHECK(recent.max() >= 1099 && double(recent.max()) <= 1099 * 1.02);
  CHECK_EQ(recent.sum(), 100u * 1000 + 99 * 50);
  const HistogramSnapshot all = rig.history.window(20 * kSecond, 60).histograms[0];
  CHECK_EQ(all.count(), 200u);
  CHECK(double(all.quantile(0.99)) > 0.99e6);
}

TEST(history_loses_nothing_between_threads) {
  Rig rig(0);
  std::atomic<Nanos> clock{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20'000; ++i) rig.event(clock.fetch_add(kSecond / 4000), i);
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(rig.count(clock.load(), 60), 60'000u);
  CHECK_EQ(rig.history.window(clock.load(), 60).histograms[0].count(), 60'000u);
}
