#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <latch>
#include <random>
#include <stdexcept>
#include <thread>

#include "batching/batcher.h"
#include "batching/fake_runner.h"
#include "comes_true.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {
bool ends(Rig& rig, const RequestRef& request, Phase phase) {
  return rig.batcher->wait(*request) == Waited::kDone && request->phase() == phase;
}
constexpr Nanos kMilli = 1'000'000;
/// A request of `rows` rows of two numbers.
Checked rows_of_two(int64_t rows) {
  return {std::make_shared<RowLayout>(std::vector{Shape{2}}, std::vector{size_t{8}}), rows, false};
}
Nanos soon(Nanos after) { return SteadyClock::instance().now() + after; }
/// Holds the only worker inside a run of its own, so that what follows stays in the queue.
RequestRef block(Rig& rig) {
  rig.model->shut();
  const size_t before = rig.model->batches().size();
  RequestRef first = rig.row(0);
  rig.model->wait_for_runs(before + 1);
  return first;
}
}  // namespace

TEST(batcher_answers_rows_and_batches) {
  Rig rig;
  const RequestRef row = rig.submit({1, 2}, {2}), rows = rig.submit({3, 4, 5, 6}, {2, 2});
  CHECK(ends(rig, row, Phase::kResult));
  CHECK(ends(rig, rows, Phase::kResult));
  CHECK((answer(*row) == std::vector<float>{3, 5}));
  CHECK((answer(*rows) == std::vector<float>{7, 9, 11, 13}));
  CHECK(row->single_row && !rows->single_row);
}

TEST(batcher_batches_what_waits_and_counts_rows) {
  Rig rig({.max_batch_size = 4});
  const RequestRef first = block(rig);
  std::vector<RequestRef> waiting;
  for (int i = 1; i <= 3; ++i) waiting.push_back(rig.row(float(i)));
  waiting.push_back(rig.submit({7, 7, 8, 8}, {2, 2}));
  CHECK_EQ(rig.batcher->stats().queue_depth, 4u);
  CHECK_EQ(rig.batcher->stats().in_flight, 1u);
  rig.model->open();
  for (const auto& r : waiting) CHECK(ends(rig, r, Phase::kResult));
  CHECK((rig.model->batches() == std::vector<Shape>{{1, 2}, {3, 2}, {2, 2}}));
  CHECK((answer(*waiting[1]) == std::vector<float>{5, 5}));
  CHECK((answer(*waiting[3]) == std::vector<float>{15, 15, 17, 17}));
  CHECK_EQ(waiting[0]->batch_rows, 3);
  CHECK_EQ(waiting[0]->batch_id, waiting[2]->batch_id);
  CHECK(waiting[0]->id != waiting[1]->id);
  const RequestTimes& t = waiting[0]->times;
  CHECK(t.enqueued > 0 && t.dequeued >= t.enqueued && t.started >= t.dequeued && t.finished >= t.started);
}

TEST(batcher_runs_each_request_alone_where_rows_mix) {
  const auto model = std::make_shared<FakeRunner>(Shape{Shape::kFree, 2});
  model->mixes = true;
  Rig rig;
  rig.model = model;
  rig.batcher = std::make_unique<Batcher>(model, BatcherOptions{.max_batch_size = 4, .max_delay = 1000 * kMilli},
                                          rig.pool, SteadyClock::instance());
  const RequestRef first = block(rig);
  std::vector<RequestRef> waiting;
  for (int i = 1; i <= 3; ++i) waiting.push_back(rig.row(float(i)));
  waiting.push_back(rig.submit({7, 7, 8, 8, 9, 9}, {3, 2}, {.deadline = soon(60'000 * kMilli)}));
  waiting.push_back(rig.submit({4, 4, 5, 5}, {2, 2}));
  CHECK(rig.batcher->cancel(*waiting[1]));
  rig.model->open();
  for (size_t i = 0; i < waiting.size(); ++i) CHECK(ends(rig, waiting[i], i == 1 ? Phase::kCancelled : Phase::kResult));
  CHECK((rig.model->batches() == std::vector<Shape>{{1, 2}, {1, 2}, {1, 2}, {3, 2}, {2, 2}}));
  CHECK((answer(*waiting[3]) == std::vector<float>{15, 15, 17, 17, 19, 19}));
  CHECK_EQ(waiting[3]->batch_rows, 3);
}

TEST(batcher_refuses_bad_input_with_a_reason) {
  Rig rig({.max_batch_size = 2});
  CHECK(error_of([&] { rig.submit({1, 2, 3}, {3}); }).reason == Reason::kShape);
  CHECK(error_of([&] { rig.submit({1, NAN}, {2}); }).reason == Reason::kNonFinite);
  CHECK(error_of([&] { rig.submit({}, {0, 2}); }).reason == Reason::kEmpty);
  CHECK(error_of([&] { rig.batcher->submit({}); }).reason == Reason::kName);
  const Status large = error_of([&] { rig.submit({1, 2, 3, 4, 5, 6}, {3, 2}); });
  CHECK(large.reason == Reason::kTooLarge);
  CHECK(large.message.find("max_batch_size=2") != std::string::npos);
  CHECK_EQ(rig.batcher->stats().invalid, 5u);
  CHECK_EQ(rig.batcher->stats().queue_depth, 0u);
  CHECK_EQ(rig.pool->stats().outstanding, 0u);
}

TEST(batcher_counts_as_invalid_what_the_model_finds_wrong_with_an_input) {
  Rig rig;
  rig.model->on_run = [] { throw Error(ErrorCode::kValidation, Reason::kShape, "not of these sizes"); };
  const RequestRef request = rig.row(1);
  rig.batcher->wait(*request);
  CHECK(request->end_status().code == ErrorCode::kValidation);
  rig.model->on_run = [] { throw Error(ErrorCode::kInference, "broken"); };
  rig.batcher->wait(*rig.row(1));
  rig.batcher->refuse_invalid();
  const BatcherStats stats = rig.batcher->stats();
  CHECK_EQ(stats.invalid, 2u);
  CHECK_EQ(stats.failed, 1u);
  CHECK_EQ(stats.windows[0].invalid, 2u);
  CHECK_EQ(rig.batcher->series().invalid.back(), 2u);
  rig.batcher->close(true);
  CHECK(error_of([&] { rig.batcher->refuse_invalid(); }).code == ErrorCode::kClosed);
  CHECK_EQ(rig.batcher->stats().invalid, 2u);
}

TEST(batcher_a_bad_request_fails_alone) {
  Rig rig;
  const RequestRef first = block(rig);
  const RequestRef good = rig.row(1), bad = rig.row(FakeRunner::kPoison), also_good = rig.row(2);
  rig.model->open();
  CHECK(ends(rig, good, Phase::kResult));
  CHECK(ends(rig, bad, Phase::kError));
  CHECK(ends(rig, also_good, Phase::kResult));
  CHECK(bad->end_status().message == "poisoned");
  CHECK((answer(*also_good) == std::vector<float>{5, 5}));
  CHECK_EQ(rig.batcher->stats().failed, 1u);
}

namespace {
/// Runs a batch of requests, those of `bad` poisoned, and checks how each ends: how many runs that took.
size_t runs_for(const std::vector<bool>& bad, bool cancels = false) {
  Rig rig({.max_batch_size = 64, .trace_size = 0});
  const RequestRef first = block(rig);
  std::vector<RequestRef> all;
  for (size_t i = 0; i < bad.size(); ++i) all.push_back(rig.row(bad[i] ? FakeRunner::kPoison : float(i)));
  const auto is_gone = [&](size_t i) { return cancels && i % 3 == 0; };
  size_t runs = 0;
  rig.model->on_run = [&] {
    if (++runs != 2) return;  // the batch of all, which then fails
    for (size_t i = 0; i < all.size(); ++i) {
      if (is_gone(i)) rig.batcher->cancel(*all[i]);
    }
  };
  rig.model->open();
  for (size_t i = 0; i < bad.size(); ++i) {
    if (is_gone(i)) continue;
    CHECK(ends(rig, all[i], bad[i] ? Phase::kError : Phase::kResult));
    if (bad[i]) {
      CHECK(all[i]->batch_rows == 1 && all[i]->end_status().message == "poisoned");
    } else {
      CHECK((answer(*all[i]) == std::vector<float>{2 * float(i) + 1, 2 * float(i) + 1}));
    }
  }
  CHECK(rig.batcher->drain());
  const size_t batches = rig.model->batches().size();
  CHECK_EQ(batches, runs);
  all.clear();
  CHECK_EQ(rig.pool->stats().outstanding, 1u);  // the answer of `first`
  return runs - 2;                              // besides `first`, and all together
}
}  // namespace

TEST(batcher_finds_a_bad_request_by_halves) {
  for (size_t n : {2, 3, 4, 5, 7, 8, 33, 64}) {
    size_t levels = 0;
    while ((size_t{1} << levels) < n) ++levels;
    size_t most = 0;
    for (size_t place = 0; place < n; ++place) {
      std::vector<bool> bad(n);
      bad[place] = true;
      most = std::max(most, runs_for(bad));
    }
    CHECK(most <= 2 * levels);
    if (n > 2) CHECK(most > levels);
  }
}

TEST(batcher_does_not_look_for_the_guilty_where_the_device_has_failed) {
  Rig rig({.max_batch_size = 64, .trace_size = 0});
  rig.model->poison = ErrorCode::kDevice;
  const RequestRef first = block(rig);
  std::vector<RequestRef> all;
  for (int i = 0; i < 9; ++i) all.push_back(rig.row(i == 4 ? FakeRunner::kPoison : float(i)));
  rig.model->open();
  for (const RequestRef& request : all) {
    CHECK(ends(rig, request, Phase::kError));
    CHECK(request->end_status().code == ErrorCode::kDevice);
  }
  CHECK_EQ(rig.model->batches().size(), size_t{2});  // `first`, and all together
  const RequestRef next = rig.row(1);                // whose device works again
  CHECK(ends(rig, next, Phase::kResult));
}

TEST(batcher_finds_any_number_of_bad_requests) {
  std::mt19937 random(3);
  for (int i = 0; i < 60; ++i) {
    const size_t n = 2 + random() % 63, one_of = 1 + random() % 20;
    std::vector<bool> bad(n);
    for (size_t j = 0; j < n; ++j) bad[j] = random() % one_of == 0;
    bad[random() % n] = true;
    CHECK(runs_for(bad, i % 2) <= n + n / 2);
  }
  CHECK(runs_for(std::vector<bool>(64, true)) <= 64 + 32);
}

TEST(batcher_is_looked_at_while_it_finds_the_bad) {
  ManualClock clock(1000);
  Rig rig({.max_batch_size = 64}, {Shape::kFree, 2}, clock);
  std::atomic<bool> over{false};
  std::thread other([&] {  // goes through all that run, as a close would
    while (!over) rig.batcher->poke();
  });
  for (int round = 0; round < 50; ++round) {
    const size_t runs = rig.model->batches().size();
    rig.model->shut();
    const RequestRef first = rig.row(1);
    rig.model->wait_for_runs(runs + 1);
    std::vector<RequestRef> all;
    for (int i = 0; i < 64; ++i) all.push_back(rig.row(i % 8 ? 1 : FakeRunner::kPoison));
    rig.model->open();
    for (int i = 0; i < 64; ++i) CHECK(ends(rig, all[size_t(i)], i % 8 ? Phase::kResult : Phase::kError));
    CHECK(ends(rig, first, Phase::kResult));
  }
  over = true;
  other.join();
}

TEST(batcher_output_checks_are_per_request) {
  Rig rig({.outputs = {OutputChecks{.finite = true}}});
  const RequestRef first = block(rig);
  const RequestRef good = rig.row(1), bad = rig.row(FakeRunner::kNaNBack);
  rig.model->open();
  CHECK(ends(rig, good, Phase::kResult));
  CHECK(ends(rig, bad, Phase::kError));
  CHECK(bad->status.code == ErrorCode::kOutput && bad->status.reason == Reason::kNonFinite);
  CHECK((rig.model->batches() == std::vector<Shape>{{1, 2}, {2, 2}}));  // nothing ran twice
}

TEST(batcher_wants_the_batch_axis_back) {
  Rig rig;
  rig.model->drop_batch_axis = true;
  const RequestRef r = rig.submit({1, 2, 3, 4, 5, 6}, {3, 2});
  CHECK(ends(rig, r, Phase::kError));
  CHECK(r->status.reason == Reason::kShape);
  CHECK(r->status.message.find("'y'") != std::string::npos);
}

TEST(batcher_fixed_first_dimension) {
  Rig one({}, {1, 2});
  const RequestRef first = block(one);
  const RequestRef a = one.row(1), b = one.submit({2, 2}, {1, 2});
  one.model->open();
  CHECK(ends(one, a, Phase::kResult) && ends(one, b, Phase::kResult));
  CHECK((one.model->batches() == std::vector<Shape>{{1, 2}, {1, 2}, {1, 2}}));
  Rig three({}, {3, 2});
  CHECK(error_of([&] { three.submit(std::vector<float>(8), {4, 2}); }).reason == Reason::kTooLarge);
  CHECK(ends(three, three.submit(std::vector<float>(6), {3, 2}), Phase::kResult));
}

TEST(batcher_an_odd_shape_runs_by_itself_and_blocks_nobody) {
  Rig rig({}, {Shape::kFree, Shape::kFree});
  const RequestRef first = block(rig);
  const RequestRef a = rig.submit({1, 1}, {2}), odd = rig.submit({1, 2, 3}, {3}), b = rig.submit({2, 2}, {2});
  rig.model->open();
  for (const auto& r : {a, odd, b}) CHECK(ends(rig, r, Phase::kResult));
  CHECK((rig.model->batches() == std::vector<Shape>{{1, 2}, {2, 2}, {1, 3}}));
  CHECK((answer(*odd) == std::vector<float>{3, 5, 7}));
}

TEST(batcher_models_that_cannot_be_batched) {
  CHECK_THROWS(Rig({}, Shape{}), std::invalid_argument);
  CHECK_THROWS(Rig({.max_batch_size = 0}), std::invalid_argument);
  CHECK_THROWS(Rig({.workers = 0}), std::invalid_argument);
  CHECK_THROWS(Rig({.outputs = {OutputChecks{}, OutputChecks{}}}), std::invalid_argument);
}

TEST(batcher_delay_counts_from_the_oldest_enqueue) {
  ManualClock clock(1000);
  Rig rig({.max_batch_size = 8, .max_delay = 100}, {Shape::kFree, 2}, clock);
  const RequestRef a = rig.row(1);
  clock.advance(60);
  const RequestRef b = rig.row(2);
  clock.advance(39);
  rig.batcher->poke();
  CHECK(rig.batcher->wait(*a, soon(5 * kMilli)) == Waited::kTimedOut);
  clock.advance(1);
  rig.batcher->poke();
  CHECK(ends(rig, a, Phase::kResult) && ends(rig, b, Phase::kResult));
  CHECK_EQ(rig.model->batches().size(), 1u);
  CHECK_EQ(rig.batcher->stats().dispatched[size_t(DispatchReason::kDelay)], 1u);
}

namespace {
/// One that tells the time late to those who come once it has been made slow, but for the thread that made it.
class SlowClock final : public Clock {
 public:
  Nanos now() const override {
    const Nanos read = now_.load();
    if (slow_ && std::this_thread::get_id() != quick_) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return read;
  }
  void advance(Nanos by) { now_ += by; }
  void slow() { slow_ = true; }

 private:
  const std::thread::id quick_ = std::this_thread::get_id();
  std::atomic<Nanos> now_{1000};
  std::atomic<bool> slow_{false};
};
}  // namespace

TEST(batcher_poke_waits_for_what_a_worker_is_about_to_end) {
  SlowClock clock;
  Rig rig({}, {Shape::kFree, 2}, clock);
  const RequestRef running = block(rig), request = rig.row(1, {.deadline = 1100});
  clock.slow();
  clock.advance(100);
  rig.model->open();
  CHECK(comes_true([&] { return rig.batcher->stats().queue_depth == 0; }));
  rig.batcher->poke();
  CHECK(request->phase() == Phase::kExpired);
}

TEST(batcher_poke_finds_what_a_worker_is_about_to_run) {
  SlowClock clock;
  Rig rig({}, {Shape::kFree, 2}, clock);
  rig.model->shut();
  clock.slow();
  const RequestRef request = rig.row(1, {.deadline = 1100});
  CHECK(comes_true([&] { return rig.batcher->stats().queue_depth == 0; }));
  clock.advance(100);
  rig.batcher->poke();
  CHECK(request->phase() == Phase::kExpired);
  rig.model->open();
}

TEST(batcher_delay_ends_by_itself_and_when_full) {
  Rig slow({.max_batch_size = 2, .max_delay = 3'600'000 * kMilli});
  const RequestRef a = slow.row(1), b = slow.row(2);
  CHECK(ends(slow, a, Phase::kResult) && ends(slow, b, Phase::kResult));
  CHECK_EQ(slow.batcher->stats().dispatched[size_t(DispatchReason::kFull)], 1u);
  Rig quick({.max_delay = 2 * kMilli});
  CHECK(ends(quick, quick.row(1), Phase::kResult));
}

TEST(batcher_cancel_takes_no_place) {
  Rig rig;
  const RequestRef running = block(rig);
  const RequestRef a = rig.row(1), b = rig.row(2);
  CHECK(rig.batcher->cancel(*a));
  CHECK(!rig.batcher->cancel(*a));
  CHECK_EQ(rig.batcher->stats().queue_depth, 1u);
  CHECK(rig.batcher->cancel(*running));  // runs on, for nobody
  rig.model->open();
  CHECK(ends(rig, b, Phase::kResult));
  CHECK(!rig.batcher->cancel(*b));
  CHECK(ends(rig, a, Phase::kCancelled) && ends(rig, running, Phase::kCancelled));
  CHECK((rig.model->batches() == std::vector<Shape>{{1, 2}, {1, 2}}));
  CHECK(a->end_status().code == ErrorCode::kCancelled);
  CHECK_EQ(rig.batcher->stats().cancelled, 2u);
}

TEST(batcher_what_has_ended_keeps_no_input) {
  ManualClock clock(1000);
  Rig rig({.max_queue_size = 3, .wait_when_full = true}, {Shape::kFree, 2}, clock);
  const RequestRef running = block(rig);
  const size_t one = rig.pool->stats().outstanding;
  const RequestRef queued = rig.row(1), expiring = rig.row(2, {.deadline = 2000}), third = rig.row(3);
  const RequestRef parked = rig.row(4);
  CHECK(parked->phase() == Phase::kWaiting);
  CHECK_EQ(rig.pool->stats().outstanding, one + 4);
  for (const auto& r : {parked, queued, third}) CHECK(rig.batcher->cancel(*r));
  clock.advance(1000);
  rig.batcher->poke();
  CHECK(ends(rig, expiring, Phase::kExpired));
  CHECK_EQ(rig.pool->stats().outstanding, one);
  // Admitted and not queued yet, as in the tick of an event loop: the place goes with it, too.
  const float value[2] = {};
  const std::vector views{StridedView::contiguous({DType::kF32, {2}, value})};
  std::vector<RequestRef> staged;
  for (int i = 0; i < 3; ++i) staged.push_back(rig.batcher->admit(views, rig.batcher->check(views), {}));
  CHECK_EQ(rig.batcher->stats().queue_depth, 3u);
  for (const auto& r : staged) CHECK(rig.batcher->cancel(*r));
  CHECK_EQ(rig.batcher->stats().queue_depth, 0u);
  CHECK_EQ(rig.pool->stats().outstanding, one);
  rig.batcher->enqueue(staged);
  CHECK_EQ(rig.batcher->stats().queue_depth, 0u);
  // One that is dropped without a word leaves nothing, either.
  (void)rig.batcher->admit(views, rig.batcher->check(views), {});
  CHECK_EQ(rig.batcher->stats().queue_depth, 0u);
  CHECK(rig.batcher->cancel(*running));
  CHECK_EQ(rig.pool->stats().outstanding, one);  // its batch reads it still
  rig.model->open();
  CHECK(rig.batcher->drain());
  CHECK_EQ(rig.pool->stats().outstanding, 0u);
}

TEST(batcher_a_cancelled_one_of_a_batch_keeps_no_input_through_the_others_runs) {
  Rig rig({.max_batch_size = 4});
  const RequestRef first = block(rig);
  const RequestRef gone = rig.row(1), bad = rig.row(FakeRunner::kPoison), good = rig.row(2);
  size_t left = 0;
  int runs = 0;
  rig.model->on_run = [&] {
    if (++runs == 2) rig.batcher->cancel(*gone);          // the batch of three, which then fails
    if (runs == 4) left = rig.pool->stats().outstanding;  // `good` alone
  };
  rig.model->open();
  CHECK(ends(rig, good, Phase::kResult) && ends(rig, bad, Phase::kError));
  CHECK(gone->phase() == Phase::kCancelled);
  CHECK_EQ(runs, 4);        // `gone` did not run again
  CHECK_EQ(left, 1u + 1u);  // the input of `good`, and the answer of `first`
}

TEST(batcher_cancel_loses_to_an_end_that_is_being_written) {
  Rig rig;
  const RequestRef running = block(rig);
  CHECK(running->claim() == Phase::kRunning);
  CHECK(!running->done());
  CHECK(!rig.batcher->cancel(*running));
  rig.batcher->expire(*running, kNever);
  CHECK(!running->claim());
  CHECK_EQ(running->next_timeout(), kNever);
  // A sleeper sleeps on through the claim, and wakes at the end.
  const RequestRef other = rig.row(1);
  std::thread sleeper([&] { CHECK(rig.batcher->wait(*other) == Waited::kDone && other->phase() == Phase::kError); });
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK(other->claim() == Phase::kQueued);
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  other->open = {};
  other->publish(Phase::kError);
  sleeper.join();
  running->open = {};
  running->publish(Phase::kError);
  rig.model->open();
}

TEST(batcher_drain_waits_for_a_batch_whose_requests_are_all_cancelled) {
  Rig rig;
  const RequestRef running = block(rig);
  CHECK(rig.batcher->cancel(*running));
  CHECK(!rig.batcher->drain(soon(2 * kMilli)));
  CHECK_EQ(rig.batcher->stats().in_flight, 1u);
  rig.model->open();
  CHECK(rig.batcher->drain());
  CHECK_EQ(rig.batcher->stats().in_flight, 0u);
}

TEST(batcher_expires_promptly_behind_a_busy_worker) {
  Rig rig;
  const RequestRef running = block(rig);
  const RequestRef r = rig.row(1, {.deadline = soon(2 * kMilli)});
  CHECK(ends(rig, r, Phase::kExpired));  // while the worker is still inside
  CHECK_EQ(rig.batcher->stats().queue_depth, 0u);
  CHECK(r->end_status().code == ErrorCode::kDeadline);
  rig.model->open();
  CHECK(error_of([&] { rig.row(1, {.deadline = 1}); }).code == ErrorCode::kDeadline);
  CHECK_EQ(rig.batcher->stats().expired, 2u);
}

TEST(batcher_an_answer_that_comes_late_is_expired) {
  ManualClock clock(1000);
  Rig rig({}, {Shape::kFree, 2}, clock);
  rig.model->on_run = [&] { clock.advance(100); };
  CHECK(ends(rig, rig.row(1, {.deadline = 1050}), Phase::kExpired));
  CHECK(ends(rig, rig.row(1, {.deadline = 1200}), Phase::kResult));
}

TEST(batcher_full_queue_refuses_after_sweeping_the_expired) {
  ManualClock clock(1000);
  Rig rig({.max_queue_size = 2}, {Shape::kFree, 2}, clock);
  const RequestRef running = block(rig);
  const RequestRef a = rig.row(1, {.deadline = 2000}), b = rig.row(2);
  const Status full = error_of([&] { rig.row(3); });
  CHECK(full.code == ErrorCode::kQueueFull);
  clock.advance(1000);
  const RequestRef c = rig.row(3);  // takes the place of a
  CHECK(a->phase() == Phase::kExpired);
  rig.model->open();
  CHECK(ends(rig, b, Phase::kResult) && ends(rig, c, Phase::kResult));
  CHECK_EQ(rig.batcher->stats().rejected, 1u);
}

TEST(batcher_waits_for_room_in_turn) {
  Rig rig({.max_batch_size = 1, .max_queue_size = 1, .wait_when_full = true});
  const RequestRef running = block(rig);
  const RequestRef queued = rig.row(1), second = rig.row(2), third = rig.row(3);
  CHECK(second->phase() == Phase::kWaiting && third->phase() == Phase::kWaiting);
  CHECK_EQ(rig.batcher->stats().queue_depth, 3u);
  CHECK(rig.batcher->cancel(*queued));  // its place goes to the next
  CHECK(rig.batcher->wait_for_room(*second) == Waited::kDone);
  CHECK(second->phase() == Phase::kQueued);
  CHECK(rig.batcher->cancel(*third));
  rig.model->open();
  CHECK(ends(rig, second, Phase::kResult));
}

TEST(batcher_waits_for_room_no_longer_than_told) {
  Rig rig({.max_queue_size = 1, .wait_when_full = true, .full_timeout = 2 * kMilli});
  const RequestRef running = block(rig);
  const RequestRef queued = rig.row(1), waiting = rig.row(2);
  CHECK(rig.batcher->wait_for_room(*waiting) == Waited::kDone);
  CHECK(waiting->phase() == Phase::kRejected);
  CHECK(waiting->end_status().code == ErrorCode::kQueueFull);
  rig.model->open();
  CHECK(ends(rig, queued, Phase::kResult));
}

TEST(batcher_priority_goes_first) {
  Rig rig({.max_batch_size = 1});
  const RequestRef running = block(rig);
  const RequestRef low = rig.row(1), high = rig.row(2, {.priority = 9});
  rig.model->open();
  CHECK(ends(rig, low, Phase::kResult) && ends(rig, high, Phase::kResult));
  CHECK(high->batch_id < low->batch_id);
  CHECK_THROWS(rig.row(1, {.priority = 101}), std::invalid_argument);
}

TEST(batcher_caller_runs_when_idle_and_hands_over) {
  Rig rig;
  Slot slot = rig.batcher->begin_caller_run(rows_of_two(1));
  CHECK(slot);
  CHECK(!rig.batcher->begin_caller_run(rows_of_two(1)));  // one slot
  const RequestRef queued = rig.row(1);
  CHECK(rig.batcher->wait(*queued, soon(3 * kMilli)) == Waited::kTimedOut);
  slot = {};  // wakes the worker
  CHECK(ends(rig, queued, Phase::kResult));
  Rig waits({.max_delay = kMilli});
  CHECK(!waits.batcher->begin_caller_run(rows_of_two(1)));
  CHECK(waits.batcher->begin_caller_run(rows_of_two(64)));
}

namespace {
/// Runs `count` requests of one row that take `nanos` of the clock each.
void teach(Rig& rig, ManualClock& clock, int count, Nanos nanos) {
  rig.model->on_run = [&clock, nanos] { clock.advance(nanos); };
  for (int i = 0; i < count; ++i) CHECK(ends(rig, rig.row(1), Phase::kResult));
  CHECK_EQ(rig.batcher->stats().completed, uint64_t(count));
}
}  // namespace

TEST(batcher_a_caller_with_a_deadline_runs_only_what_is_known_to_be_short) {
  ManualClock clock(kMilli);
  Rig rig({}, {Shape::kFree, 2}, clock);
  const float value[2] = {};
  const std::vector views{StridedView::contiguous({DType::kF32, {2}, value})};
  const Checked checked = rig.batcher->check(views);
  CHECK(!rig.batcher->begin_caller_run(checked, clock.now() + 1000 * kMilli));  // nobody knows
  CHECK(rig.batcher->begin_caller_run(checked));
  teach(rig, clock, 6, 10 * kMilli);
  CHECK(comes_true([&] { return rig.batcher->stats().in_flight == 0; }));
  CHECK(rig.batcher->begin_caller_run(checked, clock.now() + 1000 * kMilli));
  CHECK(!rig.batcher->begin_caller_run(checked, clock.now() + 10 * kMilli));
  CHECK(rig.batcher->begin_caller_run(checked));
  CHECK_EQ(rig.batcher->stats().in_flight, 0u);
  // Where values decide, what ran so far promises nothing: neither to a deadline nor to who holds the GIL meanwhile.
  CHECK(rig.batcher->predict(*checked.layout, 1) < 1000 * kMilli);
  rig.model->by_values = true;
  CHECK(!rig.batcher->begin_caller_run(checked, clock.now() + 1000 * kMilli));
  CHECK(rig.batcher->begin_caller_run(checked));
  CHECK_EQ(rig.batcher->predict(*checked.layout, 1), kNever);
}

TEST(batcher_refuses_what_cannot_be_in_time_and_says_why) {
  ManualClock clock(kMilli);
  Rig other({.max_batch_size = 1}, {Shape::kFree, 2}, clock);
  teach(other, clock, 6, 10 * kMilli);
  const Status late = error_of([&] { other.row(1, {.deadline = clock.now() + 4 * kMilli}); });
  CHECK(late.code == ErrorCode::kDeadline);
  CHECK(late.message.find("4 ms") != std::string::npos && late.message.find("10 ms") != std::string::npos);
  // Behind others: three of 10 ms each, one of which runs.
  other.model->on_run = nullptr;
  const RequestRef running = block(other);
  const RequestRef a = other.row(1, {.priority = 1}), b = other.row(2, {.priority = 1});
  CHECK(error_of([&] { other.row(1, {.deadline = clock.now() + 35 * kMilli}); }).code == ErrorCode::kDeadline);
  const RequestRef in_time = other.row(1, {.deadline = clock.now() + 60 * kMilli});
  const RequestRef first = other.row(1, {.deadline = clock.now() + 35 * kMilli, .priority = 1});  // before a and b
  CHECK_EQ(other.batcher->stats().expired, 2u);
  other.model->open();
  for (const auto& r : {a, b, in_time, first}) CHECK(ends(other, r, Phase::kResult));
  // After a pause the figures are a guess, and somebody is let in to find out.
  CHECK(comes_true([&] { return other.batcher->stats().in_flight == 0; }));
  clock.advance(1000 * kMilli);
  CHECK(ends(other, other.row(1, {.deadline = clock.now() + 4 * kMilli}), Phase::kResult));
}

TEST(batcher_runs_inline_what_is_short) {
  const float values[2] = {1, 2};
  const std::vector views{StridedView::contiguous({DType::kF32, {2}, values})};
  bool here = false;
  for (int attempt = 0; attempt < 200 && !here; ++attempt) {  // a worker that has not gone to sleep yet may be faster
    Rig rig({.max_batch_size = 4, .inline_limit = 6000});
    IntrusivePtr<CompletionList> list(new CompletionList);
    BatchRun tools = rig.batcher->make_tools();
    Batch batch;
    std::atomic<int> runs_here{0};
    rig.model->on_run = [&, me = std::this_thread::get_id()] { runs_here += std::this_thread::get_id() == me; };
    std::vector<RequestRef> staged;
    for (int i = 0; i < 9; ++i) {
      staged.push_back(rig.batcher->admit(views, rig.batcher->check(views), {}));
      CHECK(staged.back()->attach(*list));
    }
    rig.batcher->enqueue(staged, false);
    rig.batcher->run_inline(tools, batch, *list);
    CHECK(runs_here <= 1);  // 4 rows take 4000 ns, 4 more would take 8000: left to the worker
    here = runs_here == 1;
    for (const auto& r : staged) CHECK(ends(rig, r, Phase::kResult));
    CHECK(rig.batcher->drain());
    std::vector<RequestRef> ended;
    list->acknowledge();
    list->take(ended);
    CHECK_EQ(ended.size(), 9u);
    CHECK(rig.model->batches()[0][0] == 4);
  }
  CHECK(here);
}

TEST(batcher_wakes_a_loop_once_for_a_batch) {
  Rig rig;
  IntrusivePtr<CompletionList> list(new CompletionList);
  const RequestRef running = block(rig);
  std::vector<RequestRef> waiting;
  for (int i = 0; i < 9; ++i) {
    waiting.push_back(rig.row(float(i)));
    CHECK(waiting.back()->attach(*list));
  }
  rig.model->open();
  CHECK(rig.batcher->drain());
  eventfd_t writes = 0;
  CHECK_EQ(::eventfd_read(list->fd(), &writes), 0);
  CHECK_EQ(writes, 1u);
  std::vector<RequestRef> ended;
  list->take(ended);
  CHECK(ended == waiting);
}

TEST(batcher_attach_knows_who_was_first) {
  Rig rig;
  IntrusivePtr<CompletionList> list(new CompletionList), other(new CompletionList);
  const RequestRef running = block(rig);
  CHECK(running->attach(*list));
  CHECK(!running->attach(*other));
  CHECK(running->attached_to(*list));
  rig.model->open();
  CHECK(ends(rig, running, Phase::kResult));
  rig.batcher->close(true);
  CHECK(!running->attach(*other));
  std::vector<RequestRef> ended;
  list->take(ended);
  CHECK(ended.size() == 1 && ended[0] == running);
}

TEST(batcher_close_with_and_without_draining) {
  for (bool drain : {true, false}) {
    Rig rig({.max_batch_size = 1});
    const RequestRef running = block(rig);
    const RequestRef waiting = rig.row(1);
    std::thread closer([&] { rig.batcher->close(drain); });
    std::thread second([&] { rig.batcher->close(drain); });
    if (!drain) CHECK(ends(rig, waiting, Phase::kClosed));  // before the run is over
    rig.model->open();
    closer.join();
    second.join();
    CHECK(running->phase() == Phase::kResult);
    CHECK(waiting->phase() == (drain ? Phase::kResult : Phase::kClosed));
    CHECK(error_of([&] { rig.row(1); }).code == ErrorCode::kClosed);
    CHECK(!rig.batcher->begin_caller_run(rows_of_two(1)));
    rig.batcher->close(drain);
    CHECK(rig.batcher->closed());
  }
}

TEST(batcher_drain_does_not_wait_for_company) {
  Rig rig({.max_delay = 3'600'000 * kMilli});
  const RequestRef r = rig.row(1);
  CHECK(rig.batcher->drain());
  CHECK(r->phase() == Phase::kResult);
  CHECK(error_of([&] { rig.row(1); }).code == ErrorCode::kClosed);
  Rig busy;
  const RequestRef running = block(busy);
  CHECK(!busy.batcher->drain(soon(kMilli)));
  busy.model->open();
}

TEST(batcher_a_closing_one_lets_go_of_those_that_wait_for_room) {
  Rig rig({.max_queue_size = 1, .wait_when_full = true});
  const RequestRef running = block(rig);
  const RequestRef queued = rig.row(1), waiting = rig.row(2);
  std::thread closer([&] { rig.batcher->close(false); });
  CHECK(ends(rig, waiting, Phase::kClosed) && ends(rig, queued, Phase::kClosed));
  rig.model->open();
  closer.join();
}

TEST(batcher_a_model_may_not_wait_for_itself) {
  Rig rig;
  int refused = 0;
  rig.model->on_run = [&] {
    try {
      rig.batcher->close(true);
    } catch (const std::logic_error&) {
      ++refused;
    }
  };
  CHECK(ends(rig, rig.row(1), Phase::kResult));
  CHECK_EQ(refused, 1);
}

TEST(batcher_destructor_ends_everything) {
  auto rig = std::make_unique<Rig>(BatcherOptions{.max_delay = 3'600'000 * kMilli});
  const RequestRef r = rig->row(1);
  rig->batcher.reset();
  CHECK(r->phase() == Phase::kClosed);
  CHECK_EQ(rig->pool->stats().outstanding, 0u);
}

TEST(batcher_results_outlive_it_and_leave_no_buffers) {
  Rig rig;
  RequestRef r = rig.row(4);
  rig.batcher->close(true);
  rig.batcher.reset();
  CHECK((answer(*r) == std::vector<float>{9, 9}));
  CHECK_EQ(rig.pool->stats().outstanding, 1u);
  r = nullptr;
  CHECK_EQ(rig.pool->stats().outstanding, 0u);
}

#if !defined(__SANITIZE_THREAD__)
TEST(batcher_in_a_forked_child_is_closed) {
  Rig rig;
  const RequestRef running = block(rig);
  const RequestRef waiting = rig.row(1);
  const pid_t child = ::fork();
  if (child == 0) {
    int failed = 0;
    failed |= error_of([&] { rig.row(1); }).code != ErrorCode::kClosed;
    failed |= rig.batcher->wait(*waiting) != Waited::kDone || waiting->phase() != Phase::kClosed;
    failed |= !rig.batcher->drain();
    rig.batcher->close(true);
    rig.batcher.reset();
    ::_exit(failed);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  CHECK_EQ(status, 0);
  rig.model->open();
  CHECK(ends(rig, waiting, Phase::kResult));
}
#endif

TEST(batcher_stats_add_up) {
  Rig rig({.max_batch_size = 4});
  const RequestRef first = block(rig);
  std::vector<RequestRef> all{first};
  for (int i = 0; i < 4; ++i) all.push_back(rig.row(i == 2 ? FakeRunner::kPoison : 1));
  rig.model->open();
  CHECK(rig.batcher->drain());
  const BatcherStats s = rig.batcher->stats();
  CHECK_EQ(s.completed, 4u);
  CHECK_EQ(s.failed, 1u);
  CHECK_EQ(s.batches, 2u);
  CHECK_EQ(s.mean_batch_size, 2.5);
  CHECK_EQ(s.batch_fill_rate, 2.5 / 4);
  CHECK_EQ(s.inference_error_rate, 0.2);
  CHECK_EQ(s.total.count(), 5u);
  CHECK_EQ(s.in_flight, 0u);
  CHECK_EQ(s.oldest_wait, 0);
}

TEST(batcher_trace_tells_each_request_and_batch) {
  Rig rig({.max_batch_size = 4});
  const RequestRef first = block(rig);
  const RequestRef named = rig.row(1, {.name = "caller-1"}), other = rig.row(2), gone = rig.row(3);
  CHECK(rig.batcher->cancel(*gone));
  rig.model->open();
  CHECK(ends(rig, named, Phase::kResult) && ends(rig, other, Phase::kResult));
  rig.batcher->delivered(*named);
  rig.batcher->drain();
  std::vector<TraceRecord> requests, batches;
  for (const TraceRecord& r : rig.batcher->ring().read()) {
    (TraceKind(r.kind) == TraceKind::kBatch ? batches : requests).push_back(r);
  }
  CHECK_EQ(requests.size(), 4u);
  CHECK_EQ(batches.size(), 2u);
  for (const TraceRecord& r : requests) {
    CHECK(r.enqueued > 0 && r.finished >= r.enqueued && r.thread != 0 && r.rows == 1);
    if (Phase(r.outcome) == Phase::kCancelled) {
      CHECK_EQ(r.id, gone->id);
      CHECK(r.started == 0 && r.batch_id == 0);
      continue;
    }
    CHECK(Phase(r.outcome) == Phase::kResult);
    CHECK(r.dequeued >= r.enqueued && r.started >= r.dequeued && r.finished >= r.started);
    CHECK_EQ(r.batch_id, r.id == first->id ? batches[0].batch_id : batches[1].batch_id);
    CHECK_EQ(std::string(r.name_view()), r.id == named->id ? "caller-1" : "");
    CHECK_EQ(r.delivered, r.id == named->id ? named->times.delivered.load() : 0);
  }
  CHECK_EQ(batches[1].rows, 2u);
  CHECK_EQ(batches[1].batch_rows, 2u);
}

TEST(batcher_trace_of_what_is_refused_and_of_callers_runs) {
  Rig rig({.max_queue_size = 1});
  const RequestRef first = block(rig);
  const RequestRef waits = rig.row(1);
  CHECK(error_of([&] { rig.row(2, {.name = "late"}); }).code == ErrorCode::kQueueFull);
  CHECK_EQ(std::string(rig.batcher->ring().read()[0].name_view()), "late");
  CHECK(Phase(rig.batcher->ring().read()[0].outcome) == Phase::kRejected);
  rig.model->open();
  rig.batcher->drain();
  const uint64_t before = rig.batcher->ring().added();
  rig.batcher->ring().set_enabled(false);
  Rig off({.trace_size = 0});
  CHECK(ends(off, off.row(1), Phase::kResult));
  CHECK_EQ(off.batcher->ring().added(), 0u);
  CHECK_EQ(rig.batcher->ring().added(), before);
}

TEST(batcher_figures_of_a_hung_model_and_a_stuck_request) {
  ManualClock clock(kMilli);
  Rig rig({}, {Shape::kFree, 2}, clock);
  CHECK_EQ(rig.batcher->stats().longest_run, 0);
  const RequestRef first = block(rig);
  const RequestRef stuck = rig.row(1);
  clock.advance(6'000 * kMilli);
  CHECK_EQ(rig.batcher->stats().oldest_wait, 6'000 * kMilli);
  CHECK_EQ(rig.batcher->stats().longest_run, 6'000 * kMilli);
  rig.model->open();
  rig.batcher->drain();
  CHECK_EQ(rig.batcher->stats().longest_run, 0);
  CHECK_EQ(rig.batcher->stats().oldest_wait, 0);
}

TEST(batcher_windows_forget) {
  ManualClock clock(kMilli);
  Rig rig({.max_batch_size = 4}, {Shape::kFree, 2}, clock);
  CHECK(ends(rig, rig.row(1), Phase::kResult));
  CHECK(ends(rig, rig.row(FakeRunner::kPoison), Phase::kError));
  CHECK(comes_true([&] { return rig.batcher->stats().failed != 0; }));  // counted a moment after it has ended
  clock.advance(500 * kMilli);
  BatcherStats s = rig.batcher->stats();
  for (const WindowStats& w : s.windows) {
    CHECK(w.completed == 1 && w.failed == 1 && w.batches == 2 && w.rows == 2 && w.total.count() == 2);
    CHECK(std::abs(w.covered - 0.5) < 1e-9 && std::abs(w.requests_per_second - 2) < 1e-9);
    CHECK(w.inference_error_rate == 0.5 && w.batch_fill_rate == 0.25);
  }
  clock.advance(20'000 * kMilli);
  s = rig.batcher->stats();
  CHECK(s.windows[0].completed == 0 && s.windows[1].completed == 0 && s.windows[2].completed == 1);
  CHECK_EQ(s.completed, 1u);
  CHECK(s.requests_per_second == 0);
  CHECK_EQ(s.batch_sizes[0], 2u);
}

// A thread that has claimed a request may lose its turn before it publishes the end: who asks for the answer then does
// not hear that there is none in time.
TEST(batcher_end_that_is_decided_is_waited_for) {
  Rig rig({.max_batch_size = 1});
  std::latch in_run(1), go(1);
  rig.model->on_run = [&] {
    in_run.count_down();
    go.wait();
  };
  const RequestRef r = rig.row(1);
  in_run.wait();
  CHECK(r->claim() == Phase::kRunning);
  std::atomic<bool> published{false};
  std::thread claimer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    published = true;
    r->publish(Phase::kCancelled);
  });
  CHECK(rig.batcher->wait(*r, SteadyClock::instance().now()) == Waited::kDone);
  CHECK(published && r->done());
  claimer.join();
  r->open = {};  // as whoever claims it does
  go.count_down();
}
