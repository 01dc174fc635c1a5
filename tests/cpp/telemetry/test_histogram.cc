#include <algorithm>
#include <random>
#include <thread>
#include <vector>

#include "telemetry/counter.h"
#include "telemetry/histogram.h"
#include "test.h"

using namespace inferkit;

TEST(histogram_buckets_tile_the_range) {
  for (size_t i = 0; i < HistogramScale::kBuckets; ++i) {
    const uint64_t low = HistogramScale::lower(i);
    CHECK_EQ(HistogramScale::bucket(low), i);
    if (i) CHECK_EQ(HistogramScale::bucket(low - 1), i - 1);
  }
  CHECK_EQ(HistogramScale::bucket(UINT64_MAX), HistogramScale::kBuckets - 1);
}

TEST(histogram_middle_is_within_one_percent_of_all_its_values) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 200000; ++i) {
    const uint64_t value = random() >> (22 + random() % 42);
    const double middle = double(HistogramScale::middle(HistogramScale::bucket(value)));
    CHECK(std::abs(middle - double(value)) <= 0.01 * double(value));
  }
}

TEST(histogram_quantiles_match_sorted_values) {
  std::mt19937_64 random(2);
  std::lognormal_distribution<double> latency(11, 2);
  Histogram histogram;
  std::vector<int64_t> values;
  for (int i = 0; i < 50000; ++i) {
    values.push_back(static_cast<int64_t>(latency(random)));
    histogram.record(values.back());
  }
  std::sort(values.begin(), values.end());
  const HistogramSnapshot s = histogram.snapshot();
  CHECK_EQ(s.count(), values.size());
  CHECK_EQ(s.max(), static_cast<uint64_t>(values.back()));
  CHECK_EQ(s.quantile(1.0), s.max());
  for (double q : {0.001, 0.1, 0.5, 0.9, 0.99, 0.999}) {
    const double want = double(values[static_cast<size_t>(std::ceil(q * double(values.size()))) - 1]);
    CHECK(std::abs(double(s.quantile(q)) - want) <= 0.01 * want);
  }
}

TEST(histogram_merge_is_the_histogram_of_both) {
  Histogram a, b, both;
  for (int64_t v = 0; v < 3000; ++v) {
    (v % 3 ? a : b).record(v * v);
    both.record(v * v);
  }
  HistogramSnapshot merged = a.snapshot();
  merged.merge(b.snapshot());
  const HistogramSnapshot want = both.snapshot();
  CHECK_EQ(merged.count(), want.count());
  CHECK_EQ(merged.sum(), want.sum());
  CHECK_EQ(merged.max(), want.max());
  for (double q = 0; q <= 1; q += 0.01) CHECK_EQ(merged.quantile(q), want.quantile(q));
}

TEST(histogram_edges) {
  Histogram h;
  CHECK_EQ(h.snapshot().quantile(0.99), 0u);
  CHECK_EQ(h.snapshot().mean(), 0.0);
  h.record(-5);
  CHECK_EQ(h.snapshot().quantile(0.5), 0u);
  h.record(INT64_MAX);
  CHECK_EQ(h.snapshot().quantile(1.0), uint64_t{INT64_MAX});
  CHECK_EQ(h.snapshot().count_at_most(63), 1u);
}

TEST(histogram_and_counter_lose_nothing_between_threads) {
  Histogram h;
  Counter c;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int64_t i = 0; i < 20000; ++i) {
        h.record(i + t);
        c.add();
      }
    });
  }
  for (int i = 0; i < 50; ++i) CHECK(h.snapshot().count() <= 80000);
  for (auto& thread : threads) thread.join();
  CHECK_EQ(h.snapshot().count(), 80000u);
  CHECK_EQ(h.snapshot().max(), 20002u);
  CHECK_EQ(c.value(), 80000u);
}
