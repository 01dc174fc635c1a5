// Many threads do everything at once; every request must end exactly once and every buffer come back. The seed is
// printed; INFERKIT_SEED repeats a run.
#include <cstdlib>
#include <iostream>
#include <random>
#include <thread>

#include "batching/batcher.h"
#include "batching/fake_runner.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

uint64_t seed() {
  static const uint64_t value = [] {
    const char* given = std::getenv("INFERKIT_SEED");
    const uint64_t s = given ? std::strtoull(given, nullptr, 10) : std::random_device{}();
    std::cout << "INFERKIT_SEED=" << s << "\n";
    return s;
  }();
  return value;
}

struct Tally {
  std::atomic<uint64_t> results{0}, errors{0}, cancelled{0}, expired{0}, rejected{0}, closed{0}, invalid{0}, refused{0},
      late{0};
};

void check_answer(const Request& request, float value) {
  for (float y : answer(request)) CHECK_EQ(y, 2 * value + 1);
}

/// Submits `count` requests of every kind, and waits for, cancels or forgets each.
void client(Rig& rig, uint64_t stream, int count, Tally& tally, CompletionList* list, bool named) {
  std::mt19937_64 random(seed() + stream);
  std::vector<std::pair<RequestRef, float>> kept;
  const auto settle = [&](const RequestRef& r, float value) {
    CHECK(rig.batcher->wait(*r) == Waited::kDone);
    switch (r->phase()) {
      case Phase::kResult:
        ++tally.results;
        return check_answer(*r, value);
      case Phase::kError:
        ++tally.errors;
        return;
      case Phase::kCancelled:
        ++tally.cancelled;
        return;
      case Phase::kExpired:
        ++tally.expired;
        return;
      case Phase::kRejected:
        ++tally.rejected;
        return;
      case Phase::kClosed:
        ++tally.closed;
        return;
      default:
        CHECK(!"not an end");
    }
  };
  for (int i = 0; i < count; ++i) {
    const auto kind = random() % 20;
    const float value = kind == 0 ? NAN : kind == 1 ? FakeRunner::kPoison : float(random() % 100);
    const int64_t width = kind < 4 ? 3 : 2, rows = 1 + int64_t(random() % 3);
    SubmitOptions options;
    options.priority = int(random() % 3);
    if (named && random() % 3) options.client = rig.batcher->client(std::to_string(random() % 7));
    if (kind % 5 == 2) options.deadline = SteadyClock::instance().now() + Nanos(random() % 200'000);
    try {
      const std::vector<float> values(static_cast<size_t>(rows * width), value);
      Checked checked;
      checked.layout = std::make_shared<RowLayout>(std::vector{Shape{width}}, std::vector{size_t(width) * 4});
      checked.rows = rows;
      if (Slot slot = kind == 5 ? rig.batcher->begin_caller_run(checked) : Slot()) {
        if (random() % 2) {  // else it is given back unused
          PooledSink sink(rig.model->outputs(), *rig.pool);
          const TensorView x{DType::kF32, {rows, width}, values.data()};
          const std::vector views{StridedView::contiguous(x)};
          const Status status = rig.batcher->run_caller(slot, {&x, 1}, checked, sink, 0, {});
          CHECK(status.ok() != (value == FakeRunner::kPoison));
          ++(status.ok() ? tally.results : tally.errors);
        }
        continue;
      }
      RequestRef r = rig.submit(values, {rows, width}, options);
      if (list && kind % 2) r->attach(*list);
      if (kind == 6 || kind == 7) rig.batcher->cancel(*r);
      if (random() % 3 == 0) {
        settle(r, value);
      } else {
        kept.emplace_back(std::move(r), value);
      }
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kValidation)
        ++tally.invalid;
      else if (error.code() == ErrorCode::kDeadline)
        ++tally.expired;
      else
        ++tally.refused;
    }
  }
  for (auto& [r, value] : kept) settle(r, value);
}

void storm(BatcherOptions options, int threads, int count, int close_mode) {
  const bool named = !options.clients.empty();
  Tally tally;
  std::shared_ptr<BufferPool> pool;
  {
    Rig rig(options, {Shape::kFree, Shape::kFree});
    pool = rig.pool;
    IntrusivePtr<CompletionList> list(new CompletionList);
    std::atomic<bool> stop{false};
    std::thread loop([&] {  // an event loop: drains, and now and then runs something itself
      BatchRun tools = rig.batcher->make_tools();
      Batch batch;
      std::vector<RequestRef> ended;
      while (!stop.load()) {
        list->acknowledge();
        list->take(ended);
        for (const auto& r : ended) CHECK(r->done());
        ended.clear();
        rig.batcher->run_inline(tools, batch, *list);
        CHECK(rig.batcher->stats().queue_depth < 1'000'000);
        std::this_thread::yield();
      }
    });
    std::vector<std::thread> clients;
    for (int t = 0; t < threads; ++t) {
      clients.emplace_back([&, t] { client(rig, uint64_t(t), count, tally, list.get(), named); });
    }
    if (close_mode) {
      rig.model->wait_for_runs(20);
      rig.batcher->close(close_mode == 1);
    }
    for (auto& c : clients) c.join();
    stop = true;
    loop.join();
    rig.batcher->close(true);
    const BatcherStats s = rig.batcher->stats();
    CHECK_EQ(s.completed, tally.results.load());
    CHECK_EQ(s.failed, tally.errors.load());
    CHECK_EQ(s.cancelled, tally.cancelled.load());
    CHECK_EQ(s.expired, tally.expired.load());
    CHECK_EQ(s.invalid, tally.invalid.load());
    CHECK_EQ(s.rejected, tally.rejected.load() + tally.closed.load() + tally.refused.load());
    CHECK_EQ(s.queue_depth, 0u);
    CHECK_EQ(s.in_flight, 0u);
    for (const ClientFigures& c : rig.batcher->clients()) {
      CHECK_EQ(c.waiting, 0u);
      CHECK(c.answered + c.refused <= c.submitted);
    }
    std::vector<RequestRef> ended;
    list->acknowledge();
    list->take(ended);
  }
  CHECK_EQ(pool->stats().outstanding, 0u);
}

}  // namespace

TEST(stress_one_worker) { storm({.max_batch_size = 8, .max_queue_size = 16}, 4, 1500, 0); }
TEST(stress_many_workers) { storm({.max_batch_size = 4, .workers = 3, .max_concurrent = 2}, 4, 1500, 0); }
TEST(stress_delay) { storm({.max_batch_size = 4, .max_delay = 50'000, .max_queue_size = 8}, 4, 500, 0); }
TEST(stress_waiting_for_room) {
  storm({.max_batch_size = 4, .max_queue_size = 3, .workers = 2, .wait_when_full = true, .full_timeout = 100'000}, 4,
        1000, 0);
}
TEST(stress_clients) {
  const ClientTable::Configured some{{"0", {.weight = 4}}, {"1", {.rate = 2000, .burst = 5}}};
  storm({.max_batch_size = 8, .max_queue_size = 32, .workers = 2, .clients = some}, 4, 1500, 0);
  storm({.max_batch_size = 4, .max_delay = 50'000, .max_queue_size = 8, .clients = some}, 4, 500, 0);
  storm({.max_batch_size = 4,
         .max_queue_size = 3,
         .workers = 2,
         .wait_when_full = true,
         .full_timeout = 100'000,
         .clients = some},
        4, 1000, 0);
  storm({.max_batch_size = 4, .max_queue_size = 8, .workers = 2, .clients = some}, 4, 600, 2);
}
// Few values, so that many requests are equal; what runs for one caller is for others, too.
TEST(stress_equal_requests) {
  storm({.max_batch_size = 4, .max_queue_size = 16, .workers = 2, .coalesce = true}, 4, 1500, 0);
  storm({.max_batch_size = 4, .workers = 2, .coalesce = true, .result_cache = 20'000}, 4, 1500, 0);
  storm({.max_batch_size = 4,
         .max_queue_size = 3,
         .workers = 2,
         .wait_when_full = true,
         .full_timeout = 100'000,
         .isolate_failures = false,
         .clients = {{"0", {.weight = 4}}, {"1", {}}},
         .coalesce = true},
        4, 1000, 0);
  for (const int mode : {1, 2}) {
    storm({.max_batch_size = 4, .max_queue_size = 8, .workers = 2, .coalesce = true, .result_cache = 20'000}, 4, 600,
          mode);
  }
}
TEST(stress_close_draining) { storm({.max_batch_size = 4, .max_queue_size = 8, .workers = 2}, 4, 1500, 1); }
TEST(stress_close_at_once) {
  for (int i = 0; i < 5; ++i) {
    storm({.max_batch_size = 4, .max_queue_size = 8, .workers = 2, .wait_when_full = i % 2 == 1}, 4, 600, 2);
  }
}

// What a ticket does that is let go of: it may take the answer's memory with it as soon as the request has ended.
TEST(stress_delivery_against_cancellation) {
  Rig rig({.max_batch_size = 4, .workers = 2});
  std::mt19937_64 random(seed());
  std::atomic<Request*> given{nullptr};
  std::atomic<bool> stop{false};
  std::atomic<int> won{0}, delivered{0};
  std::thread canceller([&] {
    while (!stop.load()) {
      const RequestRef r = RequestRef::adopt(given.exchange(nullptr));
      if (!r) continue;
      const bool cancelled = rig.batcher->cancel(*r);
      won += cancelled;
      if (!cancelled) rig.batcher->wait(*r);
      CHECK(r->done());
      CHECK(cancelled == (r->phase() == Phase::kCancelled));
      CHECK(cancelled != bool(r->outputs));
      delivered += !cancelled;
      r->outputs = nullptr;
      r->status = {};
    }
  });
  // On a busy machine one side may win for a long time.
  constexpr int kLeast = 4000, kMost = 50 * kLeast;
  int count = 0;
  for (; count < kLeast || ((won == 0 || delivered == 0) && count < kMost); ++count) {
    RequestRef r = rig.row(float(count % 50));
    for (uint64_t spins = random() % 4000; spins > 0; --spins) asm volatile("");
    while (given.load()) std::this_thread::yield();
    given.store(r.detach());
  }
  while (given.load()) std::this_thread::yield();
  stop = true;
  canceller.join();
  CHECK(rig.batcher->drain());
  const BatcherStats s = rig.batcher->stats();
  CHECK_EQ(s.completed + s.cancelled, uint64_t(count));
  CHECK_EQ(s.cancelled, uint64_t(won.load()));
  CHECK(won > 0 && delivered > 0);  // both happened
}
