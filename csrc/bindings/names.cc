#include "bindings/names.h"

#include <algorithm>

#include "bindings/errors.h"

namespace py = pybind11;

namespace inferkit {

std::string names_of(std::span<const PortSpec> specs) {
  std::string names;
  for (const PortSpec& spec : specs) names += cat(names.empty() ? "'" : ", '", spec.name, "'");
  return names;
}

py::object find_named(py::handle dict, const PortSpec& spec) {
  PyObject* value = PyDict_GetItemWithError(dict.ptr(), name_of(spec).ptr());
  if (!value && PyErr_Occurred()) throw py::error_already_set();
  return py::reinterpret_borrow<py::object>(value);
}

void refuse_other_names(py::handle dict, std::span<const PortSpec> specs, size_t found, std::string_view what) {
  if (PyDict_GET_SIZE(dict.ptr()) <= static_cast<Py_ssize_t>(found)) return;
  const auto keys = py::reinterpret_steal<py::list>(PyDict_Keys(dict.ptr()));
  if (!keys) throw py::error_already_set();
  std::string other;
  for (const py::handle key : keys) {
    // By the characters: what a key says of itself (its str(), its comparisons) has found it already, or has not.
    const bool known = std::any_of(specs.begin(), specs.end(), [&](const PortSpec& spec) {
      return PyUnicode_Check(key.ptr()) && PyUnicode_Compare(key.ptr(), name_of(spec).ptr()) == 0;
    });
    if (!known) {
      other = repr_of(key);
      break;
    }
  }
  throw Error(ErrorCode::kValidation, Reason::kName,
              other.empty() ? cat("two keys name the same ", what, "; the model has ", names_of(specs))
                            : cat("the model has no ", what, " ", other, "; it has ", names_of(specs)));
}

}  // namespace inferkit
