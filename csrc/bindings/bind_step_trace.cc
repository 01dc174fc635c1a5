#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include "bindings/arguments.h"
#include "device/step_trace.h"

namespace py = pybind11;

namespace inferkit {

namespace {
constexpr int64_t kMostTraced = int64_t{1} << 24;  // 2 GiB
}

void bind_step_trace(py::module_& m) {
  m.def(
      "trace_steps",
      [](const Given<bool>& on, const Given<int64_t>& capacity) {
        trace_steps(flag(on, "on"), static_cast<size_t>(integer(capacity, "capacity", 1, kMostTraced)));
      },
      py::arg("on"), py::arg("capacity"), "Switches the tracing of steps on or off, for all models of the process.");
  m.def(
      "traced_steps",
      [] {
        constexpr double kSeconds = 1e-9;
        // Grows, as pybind11's list of a vector is shown by the garbage collector before it is whole.
        py::typing::List<py::typing::Tuple<py::str, py::float_, py::float_, py::int_>> out;
        for (const TraceRecord& r : traced_steps()) {
          // A name that was cut may end within a character.
          out.append(py::make_tuple(py::bytes(std::string(r.name_view())).attr("decode")("utf-8", "ignore"),
                                    kSeconds * static_cast<double>(r.started),
                                    kSeconds * static_cast<double>(r.finished), r.thread));
        }
        return out;
      },
      "The last steps, oldest first: (name, started, finished, thread), in seconds of time.monotonic().");
}

}  // namespace inferkit
