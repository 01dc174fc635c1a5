#include "bindings/timing.h"

#include <pybind11/stl.h>

#include "bindings/bound.h"

namespace py = pybind11;

namespace inferkit {

static std::optional<double> between(const std::optional<double>& from, const std::optional<double>& to) {
  return from && to ? std::optional(*to - *from) : std::nullopt;
}

Timing timing_of(const Request& request) {
  const auto seconds = [](const std::atomic<Nanos>& at) {
    const Nanos value = at.load(std::memory_order_relaxed);
    return value ? std::optional(double(value) * 1e-9) : std::nullopt;
  };
  // The phase first: whoever ends the request writes its last time and its batch, to be read once the end is seen.
  const Phase phase = request.phase();
  const RequestTimes& t = request.times;
  Timing timing{seconds(t.enqueued), seconds(t.dequeued), seconds(t.started), {}, {}, {}, {}};
  if (!is_end(phase)) return timing;
  timing.finished = seconds(t.finished);
  timing.delivered = seconds(t.delivered);
  if ((phase == Phase::kResult || phase == Phase::kError) && request.batch_id) {
    timing.batch_id = request.batch_id;
    timing.batch_size = request.batch_rows;
  }
  return timing;
}

void bind_timing(py::module_& m) {
  const char* doc =
      R"(The times of a request, in seconds of ``time.monotonic()``; None for a stage that it did not reach.)";
  py::class_<Timing>(m, "Timing", py::custom_type_setup(made_elsewhere), doc)
      .def_readonly("enqueued", &Timing::enqueued, "When it was submitted.")
      .def_readonly("dequeued", &Timing::dequeued, "When it was put into a batch.")
      .def_readonly("started", &Timing::started, "When its batch began to run.")
      .def_readonly("finished", &Timing::finished, "When it ended.")
      .def_readonly("delivered", &Timing::delivered, "When the caller took the answer, or the error.")
      .def_readonly("batch_id", &Timing::batch_id, "The number of its batch; None if it was in none.")
      .def_readonly("batch_size", &Timing::batch_size, "How many rows its batch had.")
      .def_property_readonly(
          "queue_time", [](const Timing& t) { return between(t.enqueued, t.started); },
          "Seconds from submission to the start of its batch; None where that has not run.")
      .def_property_readonly(
          "compute_time", [](const Timing& t) { return between(t.started, t.finished); },
          "Seconds that its batch took, the checks of its outputs included.")
      .def_property_readonly(
          "total_time", [](const Timing& t) { return between(t.enqueued, t.finished); },
          "Seconds from submission to its end, whatever that was; None where it has not ended.")
      .def("__reduce__",
           [](const Timing& t) {
             return reduced("_timing", t.enqueued, t.dequeued, t.started, t.finished, t.delivered, t.batch_id,
                            t.batch_size);
           })
      .def("__repr__", [](const Timing& t) {
        const auto text = [](const auto& value) { return value ? cat(*value) : std::string("None"); };
        const auto seconds = [](const std::optional<double>& value) {
          return value ? std::string(py::str(py::float_(*value))) : std::string("None");
        };
        return cat("Timing(enqueued=", seconds(t.enqueued), ", dequeued=", seconds(t.dequeued),
                   ", started=", seconds(t.started), ", finished=", seconds(t.finished),
                   ", delivered=", seconds(t.delivered), ", batch_id=", text(t.batch_id),
                   ", batch_size=", text(t.batch_size), ")");
      });
  using Seconds = std::optional<double>;
  m.def(
      "_timing",
      [](Seconds enqueued, Seconds dequeued, Seconds started, Seconds finished, Seconds delivered,
         std::optional<uint64_t> batch_id, std::optional<int64_t> batch_size) {
        return Timing{enqueued, dequeued, started, finished, delivered, batch_id, batch_size};
      },
      "What a copy of a Timing is made by.");
  require_init<Timing>();
}

}  // namespace inferkit
