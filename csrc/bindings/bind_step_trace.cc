#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "device/step_trace.h"

namespace py = pybind11;

namespace inferkit {

void bind_step_trace(py::module_& m) {
  m.def("trace_steps", &trace_steps, py::arg("on"), py::arg("capacity"),
        "Switches the tracing of steps on or off, for all models of the process.");
  m.def(
      "traced_steps",
      [] {
        constexpr double kSeconds = 1e-9;
        std::vector<std::tuple<std::string, double, double, uint32_t>> out;
        for (const TraceRecord& r : traced_steps()) {
          // A name that was cut may end within a character.
          out.emplace_back(py::str(py::bytes(std::string(r.name_view())).attr("decode")("utf-8", "ignore")),
                           kSeconds * static_cast<double>(r.started), kSeconds * static_cast<double>(r.finished),
                           r.thread);
        }
        return out;
      },
      "The last steps, oldest first: (name, started, finished, thread), in seconds of time.monotonic().");
}

}  // namespace inferkit
