#include <limits>
#include <random>

#include "batching/batcher.h"
#include "batching/fake_runner.h"
#include "batching/target.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

constexpr Nanos kMilli = 1'000'000;

auto linear(double fixed, double row) {  // milliseconds
  return [=](int64_t n) {
    const auto took = static_cast<Nanos>((fixed + row * double(n)) * double(kMilli));
    return Forecast{took, took, took, true, true, true};
  };
}

TargetPlan plan(double target, double rate, double fixed, double row, int workers = 1, int64_t most = 64,
                Nanos longest = kNever) {
  return plan_for(static_cast<Nanos>(target * double(kMilli)), rate, workers, most, longest, linear(fixed, row));
}

}  // namespace

TEST(target_bounds_the_rows_of_a_batch) {
  // 2 ms a row: a request waits for a batch, and runs in the next: two of them in 90% of 40 ms.
  const TargetPlan found = plan(40, 100, 0, 2);
  CHECK(found.kept);
  CHECK_EQ(found.rows, 8);  // 16 ms; of 12, two would take 48
  CHECK_EQ(plan(400, 100, 0, 2).rows, 64);
  CHECK_EQ(plan(400, 100, 0, 2, 1, 24).rows, 24);
}

TEST(target_that_nothing_keeps_is_said_and_work_keeps_up) {
  // 10 + 0.1 ms: 5 ms cannot be kept. What comes must still be worked off: 1,000 a second take batches of 13 or more.
  const TargetPlan found = plan(5, 1'000, 10, 0.1);
  CHECK(!found.kept);
  CHECK(found.rows >= 13 && found.rows <= 16);
  CHECK_EQ(found.delay, 0);
  // And where no size keeps up, the cheapest rows.
  const TargetPlan lost = plan(50, 1e6, 10, 0.1);
  CHECK(!lost.kept);
  CHECK_EQ(lost.rows, 64);
}

TEST(target_leaves_time_for_company_where_that_saves_work) {
  // A run takes 10 ms whatever its rows; 50 come in a second, and 200 ms may pass.
  const TargetPlan found = plan(200, 50, 10, 0);
  CHECK(found.delay > 100 * kMilli && found.delay <= 160 * kMilli);
  CHECK(found.expected <= 180 * kMilli);
  CHECK_EQ(plan(200, 50, 10, 0, 1, 64, 30 * kMilli).delay, 30 * kMilli);  // somebody's bound
  CHECK_EQ(plan(200, 50, 10, 0, 1, 64, 0).delay, 0);
  CHECK_EQ(plan(200, 50, 0, 10).delay, 0);   // rows cost their own: nothing to save
  CHECK_EQ(plan(200, 1, 10, 0).delay, 0);    // nobody comes in that time
  CHECK_EQ(plan(30, 50, 10, 0).delay, 0);    // no time is left
  CHECK_EQ(plan(200, 1e4, 10, 0).delay, 0);  // enough come while a run lasts
}

TEST(target_of_unknown_runs_is_no_plan) {
  CHECK_EQ(plan_for(kMilli, 100, 1, 64, kNever, [](int64_t) { return Forecast{}; }).rows, 0);
}

TEST(target_plans_hold_their_own_sums) {
  std::mt19937 rng(3);
  const auto draw = [&](double low, double high) { return std::uniform_real_distribution(low, high)(rng); };
  for (int round = 0; round < 3000; ++round) {
    const double target = draw(1, 500), rate = std::exp(draw(0, 10)), fixed = draw(0, 20), row = draw(0.01, 5);
    const auto workers = static_cast<int>(draw(1, 9));
    const auto most = static_cast<int64_t>(draw(1, 200));
    const TargetPlan found = plan(target, rate, fixed, row, workers, most);
    CHECK(found.rows >= 1 && found.rows <= most && found.delay >= 0);
    if (found.kept) {
      CHECK(double(found.expected) <= 0.9 * target * double(kMilli) + 1);
      CHECK((fixed + row * double(found.rows)) * (1 + 1.0 / workers) <= 0.9 * target + 1e-6);
      // Never slower than what comes.
      CHECK(double(found.rows) / (fixed + row * double(found.rows)) * 1e3 * workers >= rate);
    } else {
      CHECK_EQ(found.delay, 0);
    }
    // More time never makes it worse.
    if (found.kept) CHECK(plan(2 * target, rate, fixed, row, workers, most).kept);
  }
}

TEST(target_watch_falls_fast_and_comes_back_slowly) {
  TargetWatch watch(10 * kMilli);
  const auto answer = [&](int in_time, int late) {
    for (int i = 0; i < in_time; ++i) watch.answered(10 * kMilli);
    for (int i = 0; i < late; ++i) watch.answered(10 * kMilli + 1);
    return watch.trust();
  };
  CHECK_EQ(answer(150, 40), 1);  // too few to tell
  CHECK(answer(200, 0) < 1);
  CHECK_EQ(answer(198, 2), 0.8);  // one of a hundred is what is asked for: it stays
  CHECK(answer(400, 0) > 0.8);
  CHECK(answer(0, 400) < 0.7);
  for (int i = 0; i < 200; ++i) answer(0, 200);
  CHECK_EQ(watch.trust(), 0.1);
  for (int i = 0; i < 200; ++i) answer(200, 0);
  CHECK_EQ(watch.trust(), 1);
}

TEST(target_counts_those_that_wait_for_room_once) {
  ManualClock clock(kMilli);
  BatcherOptions options;
  options.max_batch_size = 1;
  options.max_queue_size = 1;
  options.wait_when_full = true;
  options.pace.sizes = true;
  options.pace.target = 50 * kMilli;
  Rig rig(options, {Shape::kFree, 2}, clock);
  rig.model->shut();
  std::vector<RequestRef> all;
  for (int i = 0; i < 9; ++i) all.push_back(rig.row(float(i)));
  clock.advance(100 * kMilli);
  rig.model->open();
  for (const auto& r : all) CHECK(rig.batcher->wait(*r) == Waited::kDone);
  // Nine rows within a tenth of a second, weighted as ArrivalRate weighs them: 9 e^-0.1 / (1 - e^-0.1).
  CHECK(std::abs(rig.batcher->stats().pace.rate - 85.57) < 0.1);
}

TEST(arrival_rate_follows_what_comes) {
  ArrivalRate rate;
  CHECK_EQ(rate.per_second(kMilli), 0);
  Nanos now = kMilli;
  for (int i = 0; i < 100; ++i) rate.came(now += 2 * kMilli, 1);
  CHECK(std::abs(rate.per_second(now) - 500) < 25);  // also while it is young
  for (int i = 0; i < 10'000; ++i) rate.came(now += 2 * kMilli, 3);
  CHECK(std::abs(rate.per_second(now) - 1'500) < 15);
  CHECK(rate.per_second(now + 1'000 * kMilli) < 600);
  CHECK(rate.per_second(now + 10'000 * kMilli) < 1);
  CHECK(std::isfinite(rate.per_second(0)));
}
