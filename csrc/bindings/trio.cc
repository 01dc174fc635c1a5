#include "bindings/trio.h"

#include "bindings/native_type.h"

namespace py = pybind11;

namespace inferkit {
namespace {

PyObject* trio_name = nullptr;  // interned at import

bool is_imported() {
  const auto trio = py::reinterpret_steal<py::object>(PyImport_GetModule(trio_name));
  if (!trio && PyErr_Occurred()) throw py::error_already_set();
  return bool(trio);
}

/// Kept for the life of the process, as the module is; guarded by the GIL.
struct Helper {
  PyObject *running_loop, *wait;
};

const Helper& helper() {
  static Helper known{};
  if (!known.wait) {
    const py::module_ module = py::module_::import("inferkit._trio");
    py::object running_loop = module.attr("running_loop"), wait = module.attr("wait");
    known = {running_loop.release().ptr(), wait.release().ptr()};
  }
  return known;
}

}  // namespace

py::object trio_loop() {
  if (!is_imported()) return {};
  auto loop = py::reinterpret_steal<py::object>(PyObject_CallNoArgs(helper().running_loop));
  if (!loop) throw py::error_already_set();
  return loop.is_none() ? py::object() : loop;
}

bool trio_runs() { return bool(trio_loop()); }

py::object trio_wait(py::handle ticket) { return py::handle(helper().wait)(ticket).attr("__await__")(); }

void bind_trio() { trio_name = intern("trio"); }

}  // namespace inferkit
