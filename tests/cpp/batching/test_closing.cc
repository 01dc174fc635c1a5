// Closing beside a model that hangs.
#include <thread>

#include "batching/batcher.h"
#include "batching/fake_runner.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {
constexpr Nanos kMilli = 1'000'000;
Nanos soon() { return SteadyClock::instance().now() + kMilli; }
}  // namespace

TEST(closing_gives_up_at_its_time_and_may_be_called_again) {
  for (bool drain : {true, false}) {
    Rig rig({.max_batch_size = 2});
    rig.model->shut();
    const RequestRef running = rig.row(1);
    rig.model->wait_for_runs(1);
    const RequestRef waiting = rig.row(2);
    CHECK(!rig.batcher->close(drain, soon()));
    CHECK(rig.batcher->closed() && rig.batcher->busy());
    CHECK(!running->done());
    CHECK_EQ(waiting->done(), !drain);
    rig.model->open();
    CHECK(rig.batcher->close(drain));
    CHECK(running->phase() == Phase::kResult);
    CHECK(waiting->phase() == (drain ? Phase::kResult : Phase::kClosed));
    CHECK(!rig.batcher->busy());
  }
}

TEST(closing_ends_what_runs_where_nobody_waits_for_it) {
  Rig rig({.max_batch_size = 2, .workers = 2});
  rig.model->shut();
  std::vector<RequestRef> running{rig.submit({1, 1, 2, 2}, {2, 2})};
  rig.model->wait_for_runs(1);
  running.push_back(rig.submit({3, 3, 4, 4}, {2, 2}));
  rig.model->wait_for_runs(2);
  const RequestRef waiting = rig.row(5);
  rig.batcher->refuse_all();
  CHECK(waiting->phase() == Phase::kClosed);
  CHECK(!running[0]->done() && !running[1]->done());
  rig.batcher->end_running();
  for (const RequestRef& request : running) {
    CHECK(request->phase() == Phase::kClosed);
    CHECK(rig.batcher->wait(*request) == Waited::kDone);
  }
  CHECK(rig.batcher->busy());  // the runs themselves
  rig.model->open();
  CHECK(rig.batcher->close(false));
  for (const RequestRef& request : running) CHECK(request->phase() == Phase::kClosed && !request->outputs);
  CHECK_EQ(rig.pool->stats().outstanding, 0u);
  CHECK_EQ(rig.batcher->stats().completed, 0u);
}
