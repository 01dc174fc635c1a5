// The scheduler without its threads: what benchmarks/simulate.py runs.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "batching/simulated_workers.h"
#include "bindings/arguments.h"
#include "bindings/bound.h"

namespace py = pybind11;
using namespace py::literals;

namespace inferkit {
namespace {

using Whole = Given<int64_t>;

struct PySimulation {
  std::unique_ptr<SimulatedWorkers> workers;
};

Nanos nanos(const Whole& value, const char* name) { return integer(value, name, 0); }

py::object take_of(PySimulation& self, const Whole& now) {
  const std::optional<SimulatedWorkers::Started> batch = self.workers->take(nanos(now, "now"));
  if (!batch) return py::none();
  return py::make_tuple(batch->number, batch->requests, batch->rows, std::string(dispatch_reason_name(batch->reason)));
}

py::object until_of(const PySimulation& self) {
  return self.workers->until() == kNever ? py::object(py::none()) : py::object(py::int_(self.workers->until()));
}

py::dict chosen_by(const PySimulation& self) {
  const PaceFigures found = self.workers->figures();
  py::dict out;
  out["pays"] = found.pays;
  out["company"] = found.company;
  out["delay"] = found.delay;
  out["expected"] = found.expected;
  out["kept"] = found.kept;
  return out;
}

}  // namespace

void bind_simulation(py::module_& m) {
  py::class_<PySimulation>(m, "SimulatedWorkers", py::custom_type_setup(with_new),
                           "A batcher's scheduler without its threads; whoever calls says what time it is, in "
                           "nanoseconds: see benchmarks/simulate.py.")
      .def(py::init([](const Whole& max_batch_size, const Whole& max_delay, const Whole& workers,
                       const Given<bool>& auto_size, const Given<bool>& auto_delay, const Whole& target_p99) {
             SimulatedOptions options;
             options.max_rows = integer(max_batch_size, "max_batch_size", 1);
             options.max_delay = nanos(max_delay, "max_delay");
             options.workers = static_cast<int>(integer(workers, "workers", 1, 1024));
             options.pace = {.sizes = flag(auto_size, "auto_size"), .company = flag(auto_delay, "auto_delay")};
             options.pace.target = nanos(target_p99, "target_p99");
             return PySimulation{std::make_unique<SimulatedWorkers>(options)};
           }),
           py::kw_only(), "max_batch_size"_a, "max_delay"_a, "workers"_a, "auto_size"_a, "auto_delay"_a, "target_p99"_a)
      .def(
          "come",
          [](PySimulation& self, const Whole& now, const std::vector<uint64_t>& requests, const Whole& deadline) {
            const Nanos at = integer(deadline, "deadline", -1);
            return self.workers->come(nanos(now, "now"), requests, 1, at < 0 ? kNever : at);
          },
          "now"_a, "requests"_a, "deadline"_a = -1, "Requests of one row come; False where they would be refused.")
      .def("take", &take_of, "now"_a, "Number, requests, rows and reason of the next batch, or None.")
      .def("until", &until_of, "When to call take() again after it gave None; None for when something happens.")
      .def(
          "over",
          [](PySimulation& self, const Whole& now, const Whole& number) {
            self.workers->over(nanos(now, "now"), static_cast<uint64_t>(integer(number, "number", 0)));
          },
          "now"_a, "number"_a, "The run of a batch is over.")
      .def(
          "dropped", [](PySimulation& self) { return self.workers->dropped(); },
          "Requests that were dropped since the last call, as they could not be answered in time.")
      .def("chosen", &chosen_by, "What the policy has come to.");
  require_init<PySimulation>();
}

}  // namespace inferkit
