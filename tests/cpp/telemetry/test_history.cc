#include <algorithm>
#include <cmath>
#include <deque>
#include <random>
#include <set>
#include <thread>
#include <utility>
#include <vector>

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

TEST(history_series_is_second_by_second) {
  Counter counter;
  uint64_t depth = 3;
  History history(0, {&counter}, {}, [&] { return depth; });
  const auto event = [&](Nanos now) {
    history.tick(now);
    counter.add();
  };
  for (Nanos t = 0; t < 3 * kSecond; t += kSecond / 4) event(t);
  depth = 7;
  event(10 * kSecond);  // seconds 3 to 9 had nothing: what stood at the end of second 2 stood still
  depth = 5;
  const Series series = history.series(11 * kSecond + kSecond / 2);
  CHECK(near(series.running, 0.5));
  CHECK((series.counts[0] == std::vector<uint64_t>{4, 4, 4, 0, 0, 0, 0, 0, 0, 0, 1, 0}));
  CHECK((series.gauge == std::vector<uint64_t>{3, 3, 7, 7, 7, 7, 7, 7, 7, 7, 5, 5}));
}

TEST(history_series_forgets_and_adds_up) {
  Rig rig(0);
  std::mt19937_64 random(3);
  std::vector<uint64_t> expected;
  Nanos now = 0;
  for (int second = 0; second < 2000; ++second, now += kSecond) {
    const int count = random() % 3 ? 0 : static_cast<int>(random() % 5);  // with pauses
    for (int i = 0; i < count; ++i) rig.event(now + static_cast<Nanos>(i), 1);
    expected.push_back(static_cast<uint64_t>(count));
    if (second % 97 != 0 && second != 1999) continue;
    const Series series = rig.history.series(now + kSecond / 2);
    const size_t shown = std::min<size_t>(expected.size(), size_t{History::kSeriesSeconds} + 1);
    CHECK((series.counts[0] ==
           std::vector<uint64_t>(expected.end() - static_cast<std::ptrdiff_t>(shown), expected.end())));
    CHECK_EQ(series.gauge.size(), shown);
  }
  const Series late = rig.history.series(now + 1000 * kSecond);  // a pause longer than all that is kept
  CHECK((late.counts[0] == std::vector<uint64_t>(size_t{History::kSeriesSeconds} + 1)));
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

TEST(history_has_no_quantile_above_the_largest_of_all) {
  Rig rig(0);
  const int64_t lowest = int64_t{1} << 20;  // of a bucket of some thousands
  rig.event(kSecond / 2, lowest);
  rig.event(kSecond / 2, lowest + 1);
  const HistogramSnapshot all = rig.histogram.snapshot(), window = rig.history.window(kSecond / 2, 1).histograms[0];
  CHECK_EQ(all.max(), static_cast<uint64_t>(lowest + 1));
  CHECK_EQ(window.max(), all.max());
  CHECK(window.quantile(0.5) <= all.max());
  CHECK_EQ(window.quantile(1), all.max());
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

// An hour and more of seconds that differ: the memory is that of the busiest minute, however long it goes on.
TEST(history_memory_does_not_grow_with_time) {
  Rig rig(0);
  std::mt19937_64 random(7);
  std::deque<size_t> gains;  // of the last minute's seconds: buckets that were given something
  size_t minute = 0, busiest = 0;
  for (int64_t now = 0; now < 6000; ++now) {
    std::set<size_t> buckets;
    for (int i = 100 + static_cast<int>(random() % 400); i > 0; --i) {
      const auto value = static_cast<int64_t>(std::exp2(10 + double(random() % 1000) / 50));  // to 1 s
      rig.event(now * kSecond, value);
      buckets.insert(HistogramScale::bucket(static_cast<uint64_t>(value)));
    }
    gains.push_back(buckets.size());
    minute += buckets.size();
    if (gains.size() > 60) minute -= gains.front(), gains.pop_front();
    busiest = std::max(busiest, minute);
    CHECK(rig.history.memory_bytes() <= std::max<size_t>(2 * busiest, 1024) * sizeof(Gain));
  }
}

TEST(history_memory_has_a_limit) {
  Rig rig(0);
  for (int64_t now = 0; now < 200; ++now) {
    for (size_t b = 0; b < HistogramScale::kBuckets; ++b) {
      rig.event(now * kSecond, static_cast<int64_t>(HistogramScale::lower(b)));
    }
  }
  CHECK_EQ(rig.history.memory_bytes(), rig.history.max_memory_bytes());
  const Window window = rig.history.window(200 * kSecond, 60);  // 60 whole seconds, and one without anything
  CHECK_EQ(window.counts[0], 60 * HistogramScale::kBuckets);
  CHECK_EQ(window.histograms[0].count(), window.counts[0]);
}

// What is let go of is what is old, whatever was written in between and however large the minutes were.
TEST(history_agrees_with_what_was_recorded) {
  Rig rig(0);
  std::mt19937 random(11);
  std::vector<std::pair<int64_t, int64_t>> events;  // second, value
  int64_t now = 0;
  for (int round = 0; round < 400; ++round) {
    now += random() % 16 ? 1 : 1 + random() % 80;  // now and then nothing happens for a while
    for (unsigned i = random() % (round % 100 < 50 ? 20 : 2000); i-- > 0;) {
      events.emplace_back(now, static_cast<int64_t>(random() % 4'000'000));
      rig.event(now * kSecond, events.back().second);
    }
    for (const int seconds : {1, 10, 60}) {
      const Window window = rig.history.window(now * kSecond, seconds);
      std::vector<uint64_t> expected(HistogramScale::kBuckets);
      uint64_t count = 0, sum = 0;
      for (auto e = events.rbegin(); e != events.rend() && e->first >= now - seconds; ++e) {
        ++expected[HistogramScale::bucket(static_cast<uint64_t>(e->second))], ++count;
        sum += static_cast<uint64_t>(e->second);
      }
      CHECK_EQ(window.counts[0], count);
      CHECK_EQ(window.histograms[0].sum(), sum);
      for (size_t b = 0, below = 0; b + 1 < HistogramScale::kBuckets; b += 37) {
        for (size_t i = b < 37 ? 0 : b - 36; i <= b; ++i) below += expected[i];
        if (window.histograms[0].count_at_most(HistogramScale::lower(b)) != below) CHECK_EQ(b, size_t{0});
      }
    }
  }
}
