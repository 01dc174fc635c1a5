// What a batcher tells of itself: figures, series, the trace.
#pragma once
#include <pybind11/typing.h>

#include <vector>

#include "bindings/py_batcher.h"

namespace inferkit {

using Figures = pybind11::typing::Dict<pybind11::str, pybind11::object>;

/// With `limits`, in seconds, latencies also tell how many values each of them is not exceeded by.
Figures stats_of(const PyBatcher& self, const std::vector<double>& limits);
Figures series_of(const PyBatcher& self);
/// How many requests have no answer while nobody has closed the batcher: what is lost with it, for a warning. At least;
/// a run counts as one.
size_t unanswered(const PyBatcher& self);

using TraceRows = pybind11::typing::List<pybind11::typing::Tuple<pybind11::object, pybind11::ellipsis>>;
inline constexpr const char* kTraceDoc =
    R"(The trace's records after number ``after``: (sequence, kind, id, name, batch_id, enqueued, dequeued, started, finished,
delivered, thread, rows, batch_rows, priority, tags, outcome, reason). Times are nanoseconds, 0 for what has not happened.)";
TraceRows trace_of(const PyBatcher& self, uint64_t after);

}  // namespace inferkit
