// Attributes that an object may or may not have.
#pragma once
#include <pybind11/pybind11.h>

namespace inferkit {

/// The attribute; null where there is none. Unlike with hasattr() in C, what else the look-up raises is raised here: a
/// KeyboardInterrupt, for one.
inline pybind11::object find_attribute(pybind11::handle object, const char* name) {
  PyObject* found = PyObject_GetAttrString(object.ptr(), name);
  if (!found) {
    if (!PyErr_ExceptionMatches(PyExc_AttributeError)) throw pybind11::error_already_set();
    PyErr_Clear();
  }
  return pybind11::reinterpret_steal<pybind11::object>(found);
}

}  // namespace inferkit
