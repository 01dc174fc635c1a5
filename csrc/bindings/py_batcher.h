// What a Python Batcher object holds, and how its callers sleep.
#pragma once
#include "bindings/batcher_core.h"
#include "bindings/exit.h"
#include "platform/clock.h"

namespace inferkit {

struct PyBatcher {
  CoreRef core;
};

inline constexpr Nanos kSignalSlice = 250'000'000;

/// Sleeps without the GIL in slices, so that a signal that came a moment too early is seen all the same. Throws what a
/// signal handler raises.
template <class Wait>
void sleep_with_signals(BatcherCore& core, Wait&& wait_until, Nanos slice = kSignalSlice) {
  for (;;) {
    Waited waited;
    {
      const GilAway away(core);
      waited = wait_until(SteadyClock::instance().now() + slice);
    }
    if (PyErr_CheckSignals() < 0) throw pybind11::error_already_set();
    if (waited == Waited::kDone) return;
    refuse_endless_wait(*core.runner());
  }
}

}  // namespace inferkit
