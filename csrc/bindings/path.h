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

/// An argument that is to be a path, taken as it comes. Not std::filesystem::path: it brings the locale along.
struct PathLike : pybind11::object {
  using pybind11::object::object;
  static bool check_(pybind11::handle) { return true; }
};

/// As os.fsencode gives it. Throws TypeError or ValueError that name the argument where it is no path; what its own
/// __fspath__ raises goes through.
std::string file_path(const PathLike& path, const char* name);

}  // namespace inferkit

namespace pybind11::detail {
template <>
struct handle_type_name<inferkit::PathLike> {
  static constexpr auto name = const_name("os.PathLike | str | bytes");
};
}  // namespace pybind11::detail
