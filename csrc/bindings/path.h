// Paths between Python and the core: any bytes, as the system has them.
#pragma once
#include <pybind11/pybind11.h>

#include <string>

namespace inferkit {

/// As os.fsdecode gives it.
inline pybind11::str file_name(const std::string& path) {
  PyObject* out = PyUnicode_DecodeFSDefaultAndSize(path.data(), static_cast<Py_ssize_t>(path.size()));
  if (!out) throw pybind11::error_already_set();
  return pybind11::reinterpret_steal<pybind11::str>(out);
}

}  // namespace inferkit
