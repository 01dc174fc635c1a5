// Work that is told to stop.
#include <atomic>

#include "platform/run_control.h"
#include "platform/thread_pool.h"
#include "test.h"

using namespace inferkit;

namespace {

/// Stops when it is told to.
class Switch final : public RunControl {
 public:
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
