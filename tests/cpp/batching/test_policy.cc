#include <array>
#include <random>
#include <vector>

#include "batching/policy.h"
#include "test.h"

using namespace inferkit;
using Kind = Decision::Kind;

namespace {
Decision ask(std::vector<BucketState> buckets, Nanos now, PolicyOptions options, bool draining = false) {
  return decide(buckets, now, options, draining);
}
}  // namespace

TEST(policy_is_idle_without_requests) { CHECK(ask({}, 5, {8, 0}).kind == Kind::kIdle); }

TEST(policy_is_work_conserving_without_a_delay) {
  const Decision d = ask({{1, 100}}, 100, {8, 0});
  CHECK(d.kind == Kind::kDispatch);
  CHECK(d.reason == DispatchReason::kReady);
}

TEST(policy_waits_from_the_oldest_enqueue) {
  const PolicyOptions options{8, 50};
  Decision d = ask({{7, 100}}, 149, options);
  CHECK(d.kind == Kind::kWait);
  CHECK_EQ(d.until, 150);
  d = ask({{7, 100}}, 150, options);
  CHECK(d.kind == Kind::kDispatch);
  CHECK(d.reason == DispatchReason::kDelay);
}

TEST(policy_does_not_wait_with_a_full_batch_or_in_a_drain) {
  CHECK(ask({{8, 100}}, 100, {8, 50}).reason == DispatchReason::kFull);
  CHECK(ask({{9, 100}}, 100, {8, 50}).kind == Kind::kDispatch);
  const Decision d = ask({{1, 100}}, 100, {8, 50}, true);
  CHECK(d.kind == Kind::kDispatch);
  CHECK(d.reason == DispatchReason::kDrain);
}

TEST(policy_waits_for_no_company_where_each_goes_alone) {
  const Decision decision = ask({{1, 30}}, 31, {.max_rows = 8, .max_delay = 50, .alone = true});
  CHECK(decision.kind == Kind::kDispatch && decision.reason == DispatchReason::kReady);
}

TEST(policy_does_not_wait_past_a_deadline) {
  Decision d = ask({{1, 100, 140, 0, 1, 10}}, 100, {8, 50});
  CHECK(d.kind == Kind::kWait);
  CHECK_EQ(d.until, 130);
  d = ask({{1, 100, 140, 0, 1, 10}}, 130, {8, 50});
  CHECK(d.kind == Kind::kDispatch);
  CHECK(d.reason == DispatchReason::kDeadline);
}

TEST(policy_takes_the_earliest_turn_then_the_first_queued) {
  CHECK_EQ(ask({{1, 0, kNever, 0, 3}, {1, 0, kNever, 0, 2}, {1, 0, kNever, 0, 5}}, 9, {8, 0}).bucket, 1u);
  CHECK_EQ(ask({{1, 0, kNever, 0, 3}, {1, 0, kNever, 0, 2}, {1, 0, kNever, -1, 5}}, 9, {8, 0}).bucket, 2u);
}

TEST(policy_lets_a_full_bucket_pass_one_that_waits_for_company) {
  const Decision d = ask({{1, 0, kNever, 0, 1}, {8, 20, kNever, 0, 2}}, 30, {8, 50});
  CHECK(d.kind == Kind::kDispatch);
  CHECK_EQ(d.bucket, 1u);
}

TEST(policy_takes_a_bucket_for_full_by_its_own_measure) {
  BucketState of_long_rows{3, 0, kNever, 0, 1};
  of_long_rows.most = 4;
  CHECK(ask({of_long_rows}, 30, {8, 50}).kind == Kind::kWait);
  ++of_long_rows.rows;
  const Decision d = ask({of_long_rows, {7, 0, kNever, 0, 2}}, 30, {8, 50});
  CHECK(d.kind == Kind::kDispatch && d.bucket == 0 && d.reason == DispatchReason::kFull);
  of_long_rows.most = 100;  // more than any batch has
  of_long_rows.rows = 8;
  CHECK(ask({of_long_rows}, 30, {8, 50}).reason == DispatchReason::kFull);
}

TEST(policy_takes_as_many_rows_as_pay) {
  BucketState state{4, 100};
  state.pays = 4;
  CHECK(ask({state}, 100, {64, 50}).reason == DispatchReason::kEnough);
  state.rows = 3;
  CHECK(ask({state}, 100, {64, 50}).kind == Kind::kWait);
  CHECK(ask({state}, 100, {64, 0}).reason == DispatchReason::kReady);
  state.rows = 64;
  CHECK(ask({state}, 100, {64, 50}).reason == DispatchReason::kFull);
}

TEST(policy_waits_for_company_until_it_is_there) {
  BucketState state{1, 100};
  state.company = 150;
  state.expected = 4;
  Decision d = ask({state}, 120, {64, 0});
  CHECK(d.kind == Kind::kWait);
  CHECK_EQ(d.until, 150);
  CHECK(ask({state}, 150, {64, 0}).reason == DispatchReason::kCompany);
  state.rows = 4;
  d = ask({state}, 120, {64, 0});
  CHECK(d.kind == Kind::kDispatch && d.reason == DispatchReason::kCompany);
  state.rows = 1;
  CHECK(ask({state}, 120, {64, 0}, true).reason == DispatchReason::kDrain);
  CHECK(ask({state}, 120, {.max_rows = 64, .max_delay = 0, .alone = true}).reason == DispatchReason::kReady);
  CHECK_EQ(ask({state}, 120, {64, 90}).until, 190);  // a delay that somebody asked for is what holds
  state.earliest_deadline = 145;
  state.headroom = 10;
  CHECK_EQ(ask({state}, 120, {64, 0}).until, 135);
  CHECK(ask({state}, 135, {64, 0}).reason == DispatchReason::kDeadline);
}

// Whatever waits elsewhere, a bucket's own state decides when it may go: none closes or delays another.
TEST(policy_of_one_bucket_is_not_that_of_another) {
  std::mt19937 rng(3);
  const auto draw = [&](int64_t most) { return std::uniform_int_distribution<int64_t>(0, most)(rng); };
  for (int round = 0; round < 2000; ++round) {
    const Nanos now = 100;
    const PolicyOptions options{1 + draw(8), draw(60)};
    std::vector<BucketState> buckets(static_cast<size_t>(1 + draw(5)));
    uint64_t head = 0;
    for (BucketState& b : buckets) {
      b = {1 + draw(8), draw(100), draw(2) ? kNever : 50 + draw(200), draw(100), ++head, draw(40)};
      b.most = 1 + draw(10);
    }
    Nanos first = kNever, wake = kNever;
    for (const BucketState& b : buckets) {
      const Decision alone = decide({&b, 1}, now, options, false);
      if (alone.kind == Kind::kDispatch) first = std::min(first, b.turn);
      if (alone.kind == Kind::kWait) wake = std::min(wake, alone.until);
    }
    const Decision together = decide(buckets, now, options, false);
    CHECK((together.kind == Kind::kDispatch) == (first != kNever));
    if (together.kind == Kind::kDispatch) {
      CHECK_EQ(buckets[together.bucket].turn, first);
      CHECK(decide({&buckets[together.bucket], 1}, now, options, false).kind == Kind::kDispatch);
    } else {
      CHECK_EQ(together.until, wake);
    }
  }
}

TEST(policy_wakes_for_the_earliest_bucket) { CHECK_EQ(ask({{1, 30}, {1, 10}, {1, 20}}, 30, {8, 50}).until, 60); }

TEST(policy_survives_huge_delays) {
  const Decision d = ask({{1, 100}}, 200, {8, kNever});
  CHECK(d.kind == Kind::kWait);
  CHECK_EQ(d.until, kNever);
}

TEST(policy_names_every_reason) {
  for (int i = 0; i < kDispatchReasonCount; ++i) CHECK(!dispatch_reason_name(static_cast<DispatchReason>(i)).empty());
}
