#include "bindings/path.h"

#include "base/error.h"
#include "bindings/errors.h"

namespace py = pybind11;

namespace inferkit {

std::string file_path(const PathLike& given, const char* name) {
  const auto path = py::reinterpret_steal<py::object>(PyOS_FSPath(given.ptr()));
  if (!path) {
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) throw py::error_already_set();
    PyErr_Clear();
    throw py::type_error(cat(name, " must be a path (str, bytes or os.PathLike), got ", Py_TYPE(given.ptr())->tp_name));
  }
  PyObject* encoded = nullptr;
  if (PyUnicode_FSConverter(path.ptr(), &encoded) == 0) {
    if (!PyErr_ExceptionMatches(PyExc_ValueError)) throw py::error_already_set();
    const bool no_bytes = PyErr_ExceptionMatches(PyExc_UnicodeError);
    PyErr_Clear();
    throw std::invalid_argument(cat(
        name,
        no_bytes ? " holds a character that file names cannot: " : " may not hold a NUL character: ", repr_of(path)));
  }
  return std::string(py::reinterpret_steal<py::bytes>(encoded));
}

}  // namespace inferkit
