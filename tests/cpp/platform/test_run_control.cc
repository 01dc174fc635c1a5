// Work that is told to stop.
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "platform/clock.h"
#include "platform/run_control.h"
#include "platform/stoppable.h"
#include "platform/thread_pool.h"
#include "test.h"

using namespace inferkit;

namespace {

/// Stops when it is told to.
class Switch final : public RunControl {
 public:
  explicit Switch(First first = First::kAtOnce) : RunControl(first) {}
  static Switch late() { return Switch(First::kLater); }
  std::atomic<bool> off{false};
  int looks = 0;

 protected:
  bool look(Nanos) override {
    ++looks;
    return off;
  }
};

template <class F>
bool stops(F&& f) {
  try {
    f();
    return false;
  } catch (const Stopped&) {
    return true;
  }
}

}  // namespace

TEST(work_under_no_control_goes_on) {
  CHECK(RunControl::current() == nullptr);
  RunControl::check();
  int calls = 0;
  for_parts(5, [&](int64_t) { ++calls; });
  CHECK_EQ(calls, 5);
}

TEST(a_control_holds_for_its_scope) {
  Switch outer, inner;
  {
    const RunControl::Scope scope(&outer);
    {
      const RunControl::Scope nested(&inner);
      CHECK(RunControl::current() == &inner);
    }
    CHECK(RunControl::current() == &outer);
  }
  CHECK(RunControl::current() == nullptr);
}

TEST(what_is_stopped_stays_so) {
  Switch control;
  control.off = true;
  const RunControl::Scope scope(&control);
  CHECK(stops([] { RunControl::check(); }));
  control.off = false;
  CHECK(stops([] { RunControl::check(); }));
  CHECK_EQ(control.looks, 1);
}

TEST(a_late_control_does_not_look_when_it_is_first_asked) {
  Switch control = Switch::late();
  control.off = true;
  const RunControl::Scope scope(&control);
  CHECK(control.go_on());
  CHECK_EQ(control.looks, 0);
  CHECK(!control.stopped());
  // From then on the clock counts.
  const Nanos end = SteadyClock::instance().now() + 20'000'000'000;
  while (control.go_on() && SteadyClock::instance().now() < end) {
  }
  CHECK_EQ(control.looks, 1);
  CHECK(control.stopped());
}

TEST(a_piece_that_is_suddenly_long_is_followed_by_a_look) {
  for (const bool late : {false, true}) {
    Switch control(late ? Switch::late() : Switch());
    const RunControl::Scope scope(&control);
    for (int i = 0; i < 1000; ++i) CHECK(control.go_on());
    std::this_thread::sleep_for(std::chrono::milliseconds(60));
    control.go_on();  // of a late control the first that the clock counts for
    for (int i = 0; i < 1000; ++i) CHECK(control.go_on());
    control.off = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(60));
    CHECK(!control.go_on());
  }
}

TEST(parts_that_are_left_are_not_called) {
  Switch control;
  control.off = true;
  const RunControl::Scope scope(&control);
  int calls = 0;
  for_parts(5, [&](int64_t) { ++calls; });
  CHECK_EQ(calls, 0);
}

TEST(only_the_working_thread_looks) {
  Switch control;
  control.off = true;
  CHECK(control.go_on());  // nobody's work here
  CHECK_EQ(control.looks, 0);
}

TEST(a_pool_stops_and_works_again) {
  ThreadPool pool(3);
  std::atomic<int> calls{0};
  {
    Switch control;
    control.off = true;
    const RunControl::Scope scope(&control);
    CHECK(stops([] { RunControl::check(); }));  // from now on the helpers know
    pool.parallel_for(1000, 3, [&](int64_t) { ++calls; });
    CHECK_EQ(calls.load(), 0);
  }
  pool.parallel_for(1000, 3, [&](int64_t) { ++calls; });
  CHECK_EQ(calls.load(), 1000);
}

TEST(a_deadline_tells_whose_time_was_over) {
  Deadline over(0);
  {
    const RunControl::Scope scope(&over);
    CHECK(stops([] { RunControl::check(); }));
  }
  CHECK(over.passed());

  Switch outer;
  outer.off = true;
  const RunControl::Scope scope(&outer);
  Deadline later(kNever);
  const RunControl::Scope nested(&later);
  CHECK(stops([] { RunControl::check(); }));
  CHECK(!later.passed());
}

TEST(a_caller_that_waits_for_its_helpers_looks) {
  ThreadPool pool(2);
  Switch control;
  const RunControl::Scope scope(&control);
  std::atomic<bool> helped{false};
  bool stopped = false;
  const auto caller = std::this_thread::get_id();
  pool.parallel_for(2, 2, [&](int64_t) {
    if (std::this_thread::get_id() == caller) {
      while (!helped) std::this_thread::yield();
      return;  // and waits for the helper, which works until it is told to stop
    }
    control.off = true;
    helped = true;
    const Nanos end = SteadyClock::instance().now() + 20'000'000'000;
    while (!stopped && SteadyClock::instance().now() < end) stopped = !control.go_on();
  });
  CHECK(stopped);
}

TEST(who_helps_is_under_a_control_that_follows_the_callers) {
  ThreadPool pool(2);
  Switch control;
  std::atomic<bool> helped{false};
  bool stopped = false;
  const auto caller = std::this_thread::get_id();
  const auto body = [&](int64_t) {
    if (std::this_thread::get_id() == caller) {
      while (!helped) std::this_thread::yield();
      return;
    }
    control.off = true;
    helped = true;
    WorkMeter meter;  // as in a kernel that knows nothing of threads
    const Nanos end = SteadyClock::instance().now() + 20'000'000'000;
    while (!stopped && SteadyClock::instance().now() < end) stopped = !meter.go_on(1'000'000);
  };
  {
    const RunControl::Scope scope(&control);
    pool.parallel_for(2, 2, body);
    CHECK(stopped);
    CHECK(RunControl::current() == &control);
  }
  // And under none where the caller is under none.
  std::atomic<int> free{0};
  pool.parallel_for(100, 2, [&](int64_t) { free += RunControl::current() == nullptr; });
  CHECK_EQ(free.load(), 100);
}

TEST(a_meter_looks_after_some_work_and_then_stays_stopped) {
  Switch control;
  const RunControl::Scope scope(&control);
  WorkMeter meter;
  CHECK(meter.go_on(1));
  CHECK_EQ(control.looks, 0);
  control.off = true;
  bool on = true;
  for (int i = 0; i < 1000 && on; ++i) on = meter.go_on(10'000);
  CHECK(!on);
  CHECK_EQ(control.looks, 1);
  CHECK(!meter.go_on(1));
  CHECK(stops([&] { meter.spend(1); }));
}

TEST(blocks_cover_their_range_in_order) {
  Switch control;
  for (const bool watched : {false, true}) {
    const RunControl::Scope scope(watched ? &control : nullptr);
    WorkMeter meter;
    for (const int64_t nanos : {1, 100, 1'000'000}) {
      int64_t next = 3;
      CHECK(for_blocks(meter, 3, 1000, nanos, [&](int64_t first, int64_t last) {
        CHECK_EQ(first, next);
        CHECK(last > first);
        next = last;
      }));
      CHECK_EQ(next, 1000);
    }
  }
}

TEST(blocks_of_lines_cover_them_in_order) {
  Switch control;
  for (const bool watched : {false, true}) {
    const RunControl::Scope scope(watched ? &control : nullptr);
    for (const int64_t nanos : {1, 100, 1'000'000}) {
      WorkMeter meter;
      int64_t line = 0, next = 0;
      CHECK(for_line_blocks(meter, 7, 300, nanos, [&](int64_t l, int64_t first, int64_t last) {
        CHECK_EQ(l, line);
        CHECK_EQ(first, next);
        next = last == 300 ? 0 : last;
        line += last == 300;
      }));
      CHECK_EQ(line, 7);
    }
  }
}

TEST(a_stoppable_loop_is_the_loop_where_nobody_stops_it) {
  std::vector<int> items(1000, 1);
  Switch control;
  for (RunControl* const under : {static_cast<RunControl*>(nullptr), static_cast<RunControl*>(&control)}) {
    const RunControl::Scope scope(under);
    for (int& item : stoppable(items)) ++item;
  }
  CHECK(items == std::vector<int>(1000, 3));
  CHECK(control.looks > 0);
  std::vector<size_t> seen;
  for (const size_t i : stoppable_indices(items.size())) seen.push_back(i);
  CHECK_EQ(seen.size(), items.size());
  for (size_t i = 0; i < seen.size(); ++i) CHECK_EQ(seen[i], i);
  for ([[maybe_unused]] const int i : stoppable_indices(0)) CHECK(false);
}

TEST(a_stoppable_loop_is_left_soon_after_it_is_told) {
  Switch control;
  const RunControl::Scope scope(&control);
  control.off = true;
  int steps = 0;
  const auto loop = [&] {
    for ([[maybe_unused]] const int i : stoppable_indices(1'000'000)) ++steps;
  };
  CHECK(stops(loop));
  CHECK(steps > 0 && steps <= 1000);
}
