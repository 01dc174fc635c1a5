// The deadline of the context that a call comes from: inferkit.deadline() sets it, submissions inherit it.
#pragma once
#include <pybind11/pybind11.h>

#include "platform/clock.h"

namespace inferkit {

/// Makes the context variable: `_core.context_deadline`, a pair of nanoseconds and the ManualClock that they are of, or
/// None where they are of the clock of time.monotonic(). Whoever sets it calls `_core.use_context_deadline()` first.
void add_context_deadline(pybind11::module_& m);

/// The deadline of the context, on a clock that shows `now`; kNever where there is none. One that was set on another
/// clock is as far away on this one as it is there.
Nanos context_deadline(const Clock& clock, Nanos now);

}  // namespace inferkit
