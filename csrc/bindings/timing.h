// When what happened to a request, as Python sees it.
#pragma once
#include <pybind11/pybind11.h>

#include <optional>

#include "batching/request.h"

namespace inferkit {

/// RequestTimes as Python sees them.
struct Timing {
  std::optional<double> enqueued, dequeued, started, finished, delivered;
  std::optional<uint64_t> batch_id;
  std::optional<int64_t> batch_size;
};

Timing timing_of(const Request& request);

void bind_timing(pybind11::module_& m);

}  // namespace inferkit
