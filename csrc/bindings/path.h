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

/// An argument that os.fsencode takes, up to the first NUL. Not std::filesystem::path: it brings the locale along.
struct FilePath {
  std::string bytes;
};

}  // namespace inferkit

namespace pybind11::detail {
template <>
struct type_caster<inferkit::FilePath> {
  PYBIND11_TYPE_CASTER(inferkit::FilePath, const_name("os.PathLike | str | bytes"));

  bool load(handle source, bool) {
    const auto path = reinterpret_steal<object>(PyOS_FSPath(source.ptr()));
    PyObject* encoded = nullptr;
    if (!path || PyUnicode_FSConverter(path.ptr(), &encoded) == 0) {
      PyErr_Clear();
      return false;
    }
    value.bytes = std::string(reinterpret_steal<pybind11::bytes>(encoded));
    return true;
  }
};
}  // namespace pybind11::detail
