#include <iostream>
#include <limits>
#include <random>
#include <stdexcept>

#include "base/error.h"
#include "cpu_time.h"
#include "graph/memory_planner.h"
#include "test.h"

using namespace inferkit;
using inferkit::testing::cpu_seconds;

namespace {

// Checked pair by pair, with none of the planner's code.
bool is_valid(const std::vector<Interval>& in, const MemoryPlan& plan) {
  if (plan.offsets.size() != in.size() || plan.total % 64 != 0) return false;
  for (size_t i = 0; i < in.size(); ++i) {
    if (plan.offsets[i] % 64 != 0 || plan.offsets[i] + in[i].bytes > plan.total) return false;
    for (size_t j = 0; j < i; ++j) {
      const bool same_time = in[i].first <= in[j].last && in[j].first <= in[i].last;
      const bool same_place =
          plan.offsets[i] < plan.offsets[j] + in[j].bytes && plan.offsets[j] < plan.offsets[i] + in[i].bytes;
      if (same_time && same_place) return false;
    }
  }
  return true;
}

size_t brute_live(const std::vector<Interval>& in) {
  size_t most = 0;
  for (const Interval& at : in) {
    size_t live = 0;
    for (const Interval& x : in)
      if (x.first <= at.first && at.first <= x.last) live += (x.bytes + 63) / 64 * 64;
    most = std::max(most, live);
  }
  return most;
}

std::vector<Interval> random_intervals(std::mt19937_64& rng, int count, int steps, size_t bytes, int life) {
  std::vector<Interval> out;
  for (int i = 0; i < count; ++i) {
    const int first = static_cast<int>(rng() % static_cast<unsigned>(steps));
    out.push_back({rng() % bytes, first, first + static_cast<int>(rng() % static_cast<unsigned>(life))});
  }
  return out;
}

}  // namespace

TEST(planner_empty_and_zero) {
  CHECK_EQ(plan_memory({}).total, 0u);
  const std::vector<Interval> zero{{0, 0, 3}, {64, 1, 2}};
  const MemoryPlan plan = plan_memory(zero);
  CHECK_EQ(plan.total, 64u);
  CHECK_EQ(plan.offsets[0], 0u);
}

TEST(planner_chain_needs_two_buffers) {
  std::vector<Interval> chain;
  for (int i = 0; i < 20; ++i) chain.push_back({1000, i, i + 1});
  CHECK_EQ(plan_memory(chain).total, 2048u);
}

TEST(planner_best_fit_takes_the_smaller_gap) {
  // Two gaps open at step 1, of 256 and 128 bytes; a block of 128 must take the second.
  const std::vector<Interval> in{{256, 0, 0}, {512, 0, 2}, {128, 0, 0}, {192, 0, 2}, {256, 1, 2}, {128, 1, 2}};
  const MemoryPlan plan = plan_memory(in);
  CHECK(is_valid(in, plan));
  CHECK_EQ(plan.total, max_live_bytes(in));
}

TEST(planner_random_never_overlaps_and_stays_near_the_bound) {
  std::mt19937_64 rng(7);
  double worst = 1, sum = 0;
  int rounds = 0;
  for (const int life : {2, 5, 30}) {
    for (int round = 0; round < 60; ++round, ++rounds) {
      const auto in = random_intervals(rng, 1 + static_cast<int>(rng() % 200), 100, 100'000, life);
      const MemoryPlan plan = plan_memory(in);
      CHECK(is_valid(in, plan));
      CHECK_EQ(max_live_bytes(in), brute_live(in));
      const double ratio = static_cast<double>(plan.total) / static_cast<double>(std::max<size_t>(1, brute_live(in)));
      worst = std::max(worst, ratio);
      sum += ratio;
    }
  }
  CHECK(worst < 1.35);
  CHECK(sum / rounds < 1.10);
  if (worst >= 1.35 || sum / rounds >= 1.10) std::cerr << "worst " << worst << " mean " << sum / rounds << "\n";
}

TEST(planner_is_deterministic) {
  std::mt19937_64 rng(3);
  const auto in = random_intervals(rng, 150, 60, 5000, 10);
  CHECK(plan_memory(in).offsets == plan_memory(in).offsets);
}

TEST(planner_refuses_nonsense) {
  const std::vector<Interval> backwards{{8, 3, 2}};
  CHECK_THROWS(plan_memory(backwards), std::invalid_argument);
  const size_t huge = std::numeric_limits<size_t>::max() / 2;
  const std::vector<Interval> too_much{{huge, 0, 1}, {huge, 0, 1}, {huge, 0, 1}};
  CHECK_THROWS(plan_memory(too_much), Error);
  const std::vector<Interval> one{{std::numeric_limits<size_t>::max(), 0, 1}};
  CHECK_THROWS(plan_memory(one), Error);
}

TEST(planner_is_fast_enough_to_run_per_shape) {
  std::mt19937_64 rng(5);
  const auto in = random_intervals(rng, 250, 250, 1 << 20, 4);
  double best = 1e9;
  for (int i = 0; i < 20; ++i) {
    best = std::min(best, 1e3 * cpu_seconds([&] { CHECK(plan_memory(in).total > 0); }));
  }
#ifdef NDEBUG
  CHECK(best < 2.0);  // it takes about 0.05 ms; sanitizers are slower
#endif
  std::cout << "plan_memory, 250 intervals: " << best << " ms\n";
}

TEST(planner_of_many_intervals_is_valid_and_close_to_what_is_live) {
  std::mt19937_64 rng(7);
  for (const int life : {2, 40, 4000}) {
    const std::vector<Interval> intervals = random_intervals(rng, 3000, 4000, 5000, life);
    const MemoryPlan plan = plan_memory(intervals);
    CHECK(is_valid(intervals, plan));
    CHECK(plan.total >= max_live_bytes(intervals));
    CHECK(plan.total <= 2 * max_live_bytes(intervals));
  }
}

TEST(planner_takes_a_hundred_thousand_intervals) {
  std::vector<Interval> chain, fan;
  for (int i = 0; i < 100'000; ++i) {
    chain.push_back({static_cast<size_t>(i % 2 ? 64 : 128), i, i + 1});
    fan.push_back({64, i, 100'000});
  }
  CHECK_EQ(plan_memory(chain).total, size_t{192});
  CHECK_EQ(plan_memory(fan).total, size_t{6'400'000});
}
