#include "bindings/context_deadline.h"

#include "bindings/bound.h"

namespace py = pybind11;

namespace inferkit {
namespace {

// Both are guarded by the GIL. The variable is the module's, and never given back.
PyObject* context_variable = nullptr;
bool is_used = false;  // has ever been set: most programs set no deadline so, and a look takes a fiftieth of a call

/// The clock that the second of a pair names.
const Clock& clock_named(py::handle named) {
  if (named.is_none()) return SteadyClock::instance();
  return bound<ManualClock>(named.ptr());
}

}  // namespace

void add_context_deadline(py::module_& m) {
  context_variable = PyContextVar_New("inferkit.deadline", nullptr);
  if (!context_variable) throw py::error_already_set();
  m.attr("context_deadline") = py::handle(context_variable);
  m.def("use_context_deadline", [] { is_used = true; }, "Says that context_deadline is about to be set.");
}

Nanos context_deadline(const Clock& clock, Nanos now) {
  if (!is_used) return kNever;
  PyObject* found = nullptr;
  if (PyContextVar_Get(context_variable, nullptr, &found) < 0) throw py::error_already_set();
  if (!found) return kNever;
  const auto pair = py::reinterpret_steal<py::tuple>(found);
  const auto at = pair[0].cast<Nanos>();
  const Clock& its = clock_named(pair[1]);
  if (&its == &clock) return at;
  const Nanos left = at - its.now();
  return left < kNever - now ? now + left : kNever;
}

}  // namespace inferkit
