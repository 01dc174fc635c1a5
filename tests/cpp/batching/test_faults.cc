// Memory runs out at every allocation in turn: each request still ends exactly once, and nothing is left behind.
#include <thread>

#include "batching/batcher.h"
#include "batching/fake_runner.h"
#include "fault_alloc.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {
constexpr Nanos kMilli = 1'000'000;
Nanos soon(Nanos after = 20'000 * kMilli) { return SteadyClock::instance().now() + after; }

const std::vector<float> values{1, 2, 3, 4, 5, 6}, bad(6, FakeRunner::kPoison);

/// What a client asks for, with what it got.
struct Asked {
  RequestRef request;
  bool attached = false;
};

/// Submits requests of every kind: single and batches, of two shapes, some of whose rows the model chokes on, with
/// priorities and deadlines. What memory fails is not asked.
void ask(Rig& rig, CompletionList& list, std::vector<Asked>& asked) {
  for (int i = 0; i < 24; ++i) {
    const int64_t width = 2 + i % 2, rows = 1 + i % 2;
    const TensorView x{DType::kF32, {rows, width}, (i % 8 == 5 ? bad : values).data()};
    try {
      const StridedView view = StridedView::contiguous(x);
      SubmitOptions options{.deadline = i % 6 == 3 ? soon(kMilli / 5) : kNever, .priority = i % 3};
      const RequestRef request = rig.batcher->admit({&view, 1}, rig.batcher->check({&view, 1}), options);
      const bool attached = i % 4 < 2 && request->attach(list);
      asked.push_back({request, attached});
      if (i % 12 == 7) rig.batcher->cancel(*request);  // before it is queued
      if (i % 12 == 8) {
        rig.batcher->withdraw(*request);
      } else if (!request->parked) {
        rig.batcher->enqueue({&request, 1});
      }
      if (i % 12 == 9) rig.batcher->cancel(*request);
    } catch (const std::bad_alloc&) {
    } catch (const Error&) {
    }
  }
}

/// A caller's run and an event loop's.
void run_here(Rig& rig, BatchRun& tools, Batch& batch, CompletionList& list) {
  const TensorView x{DType::kF32, {1, 2}, values.data()};
  const StridedView view = StridedView::contiguous(x);
  try {
    const Checked checked = rig.batcher->check({&view, 1});
    if (Slot slot = rig.batcher->begin_caller_run(checked)) {
      rig.batcher->scan({&view, 1});
      PooledSink sink(rig.model->outputs(), *rig.pool);
      (void)rig.batcher->run_caller(slot, {&x, 1}, checked, sink, rig.batcher->clock().now(), {});
    }
  } catch (const std::bad_alloc&) {
  } catch (const Error&) {
  }
  rig.batcher->run_inline(tools, batch, list);
}

uint64_t drive(BatcherOptions options, uint64_t first, uint64_t count, FaultScope scope) {
  std::shared_ptr<BufferPool> pool;
  uint64_t failed = 0;
  {
    Rig rig(options, {Shape::kFree, Shape::kFree});
    pool = rig.pool;
    IntrusivePtr<CompletionList> list(new CompletionList);
    BatchRun tools = rig.batcher->make_tools();
    Batch batch;
    std::vector<RequestRef> ended;
    ended.reserve(64);
    std::vector<Asked> asked;
    asked.reserve(64);
    {
      FaultAlloc faults(first, count, scope);
      ask(rig, *list, asked);
      run_here(rig, tools, batch, *list);
      for (const Asked& one : asked) {
        CHECK(rig.batcher->wait(*one.request, soon()) == Waited::kDone);
      }
      try {
        list->take(ended);
      } catch (const std::bad_alloc&) {
      }
      faults.disarm();
      failed = faults.failed();
    }
    // Later requests work, now that there is memory again.
    const RequestRef later = rig.row(4);
    CHECK(rig.batcher->wait(*later, soon()) == Waited::kDone && later->phase() == Phase::kResult);
    CHECK(rig.batcher->drain(soon()));
    CHECK(rig.batcher->close(true, soon()));
    list->take(ended);
    const BatcherStats s = rig.batcher->stats();
    CHECK_EQ(s.queue_depth, 0u);
    CHECK_EQ(s.in_flight, 0u);
    uint64_t ends[kEndCount] = {};
    size_t attached = 0;
    for (const Asked& one : asked) {
      CHECK(one.request->done());
      CHECK(!one.request->inputs);
      CHECK(!one.request->place);
      ++ends[size_t(one.request->phase()) - size_t(Phase::kResult)];
      attached += one.attached;
      if (one.request->phase() == Phase::kError) {
        const Status& status = one.request->status;
        CHECK(status.code == ErrorCode::kInference || status.code == ErrorCode::kPoolExhausted);
        CHECK(!status.message.empty());
      }
    }
    CHECK_EQ(ended.size(), attached);  // each loop hears of each end once
    CHECK_EQ(s.cancelled, ends[size_t(Phase::kCancelled) - size_t(Phase::kResult)]);
    CHECK_EQ(s.failed + s.completed >= ends[0] + ends[1] + 1, true);  // and perhaps the caller's
  }
  CHECK_EQ(pool->stats().outstanding, 0u);
  return failed;
}

void drive_all(BatcherOptions options, uint64_t count, FaultScope scope) {
  uint64_t failures_in_a_row = 0, failed = 0;
  for (uint64_t first = 0; first < 5000 && failures_in_a_row < 3; ++first) {
    // Past the last allocation nothing fails; threads may change how many there are, so look a little further.
    const uint64_t now = drive(options, first, count, scope);
    failed += now;
    failures_in_a_row = now ? 0 : failures_in_a_row + 1;
  }
  CHECK(failed > 20);  // a tool may put an operator new of its own in the place of ours
  CHECK_EQ(failures_in_a_row, 3u);
}
}  // namespace

TEST(faults_one_allocation_fails) { drive_all({.max_batch_size = 4}, 1, FaultScope::kAnyThread); }
TEST(faults_all_allocations_fail_for_a_while) { drive_all({.max_batch_size = 4}, 40, FaultScope::kAnyThread); }
TEST(faults_for_the_caller_alone) { drive_all({.max_batch_size = 4, .max_queue_size = 6}, 1, FaultScope::kThisThread); }
TEST(faults_while_some_wait_for_room) {
  drive_all({.max_batch_size = 4, .max_queue_size = 3, .workers = 2, .wait_when_full = true}, 3,
            FaultScope::kAnyThread);
}
TEST(faults_with_a_delay_and_without_isolation) {
  drive_all({.max_batch_size = 4, .max_delay = kMilli / 10, .isolate_failures = false}, 2, FaultScope::kAnyThread);
}
TEST(faults_in_output_checks) {
  drive_all({.max_batch_size = 4, .outputs = {OutputChecks{.finite = true}}}, 1, FaultScope::kAnyThread);
}

TEST(faults_leave_a_half_made_batcher_behind_nothing) {
  const auto model = std::make_shared<FakeRunner>();
  const auto pool = std::make_shared<BufferPool>();
  bool made = false;
  for (uint64_t first = 0; first < 2000 && !made; ++first) {
    FaultAlloc faults(first, 1, FaultScope::kThisThread);
    try {
      Batcher batcher(model, {.workers = 3}, pool);
      made = faults.failed() == 0;
    } catch (const std::bad_alloc&) {
    }
  }
  CHECK(made);
}

TEST(faults_without_memory_for_a_callers_own_run_are_counted) {
  const auto pool = std::make_shared<BufferPool>(PoolOptions{.max_bytes = 4096});
  Batcher batcher(std::make_shared<FakeRunner>(), {.max_batch_size = 4}, pool);
  const Buffer all = pool->acquire(4096);
  const std::vector<float> x(2);
  const std::vector inputs{StridedView::contiguous({DType::kF32, {2}, x.data()})};
  const Checked checked = batcher.check(inputs);
  CHECK(error_of([&] { batcher.copy(inputs, checked); }).code == ErrorCode::kPoolExhausted);
  CHECK_EQ(batcher.stats().rejected, 1u);
  CHECK_EQ(batcher.stats().unanswered[size_t(WhyNot::kMemory)], 1u);
}

TEST(faults_without_memory_a_worker_lives_on) {
  Rig rig({.max_batch_size = 64});
  rig.model->shut();
  const RequestRef first = rig.row(0);
  rig.model->wait_for_runs(1);
  std::vector<RequestRef> waiting;
  for (int i = 0; i < 40; ++i) waiting.push_back(rig.row(float(i)));  // more than a worker's batch has room for
  {
    FaultAlloc faults(0, UINT64_MAX);
    rig.model->open();
    for (const auto& r : waiting) CHECK(rig.batcher->wait(*r, soon()) == Waited::kDone);
  }
  for (const auto& r : waiting) {
    CHECK(r->phase() == Phase::kError);
    CHECK(r->status.code == ErrorCode::kPoolExhausted);
  }
  const RequestRef later = rig.row(4);
  CHECK(rig.batcher->wait(*later, soon()) == Waited::kDone && later->phase() == Phase::kResult);
}
