#include "bindings/call_out.h"

#include <unistd.h>

namespace py = pybind11;

namespace inferkit {
namespace {

/// As sys.exit() has it: nothing is success, a number the status, all else a message.
int status_of(const py::error_already_set& exit) {
  const py::object code = py::getattr(exit.value(), "code", py::none());
  if (code.is_none()) return 0;
  if (py::isinstance<py::int_>(code)) return code.cast<int>();
  py::module_::import("sys").attr("stderr").attr("write")(py::str("{}\n").format(code));
  return 1;
}

void flush_stream(const char* name) {
  try {
    py::module_::import("sys").attr(name).attr("flush")();
  } catch (py::error_already_set&) {
    // It is closed, or there is none.
  }
}

}  // namespace

void CallOut::end(py::error_already_set* error) {
  int status = 0;
  try {
    if (error && error->matches(PyExc_SystemExit)) {
      status = status_of(*error);
    } else if (error) {
      status = 1;
      error->restore();
      PyErr_WriteUnraisable(nullptr);
    }
  } catch (...) {
    status = 1;
  }
  flush_stream("stdout");
  flush_stream("stderr");
  ::_exit(status);
}

}  // namespace inferkit
