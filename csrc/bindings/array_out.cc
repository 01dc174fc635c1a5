#include "bindings/array_out.h"

#include <pybind11/numpy.h>

#include <array>

#include "base/small_types.h"

namespace py = pybind11;

namespace inferkit {
namespace {

using Api = py::detail::npy_api;

py::object find_dtype(DType dtype) {
  const py::module_ numpy = py::module_::import("numpy");
  if (dtype == DType::kString) return numpy.attr("dtype")("O");
  const std::string name(dtype_name(dtype));
  if (dtype != DType::kBF16 && !is_small(dtype)) return numpy.attr("dtype")(name);
  try {
    return numpy.attr("dtype")(py::module_::import("ml_dtypes").attr(py::str(name)));
  } catch (py::error_already_set& error) {
    // Older versions of ml_dtypes lack some.
    if (!error.matches(PyExc_ImportError) && !error.matches(PyExc_AttributeError)) throw;
    return numpy.attr("dtype")(dtype_size(dtype) == 1 ? "uint8" : "uint16");
  }
}

}  // namespace

py::object numpy_dtype(DType dtype) {
  // Kept for the life of the process: destroying Python objects after the interpreter is gone would crash.
  static auto* cache = new std::array<PyObject*, kDTypeCount>{};
  PyObject*& entry = (*cache)[static_cast<size_t>(dtype)];
  if (!entry) entry = find_dtype(dtype).release().ptr();
  return py::reinterpret_borrow<py::object>(entry);
}

py::object new_array(DType dtype, const Shape& shape, void** data) {
  const Api& api = Api::get();  // no static of our own: its guard would be held where get() gives up the GIL
  Py_intptr_t dims[Shape::kMaxRank];
  for (size_t i = 0; i < shape.rank(); ++i) dims[i] = shape[i];
  // NewFromDescr takes over the reference to the dtype.
  PyObject* array = api.PyArray_NewFromDescr_(api.PyArray_Type_, numpy_dtype(dtype).release().ptr(),
                                              static_cast<int>(shape.rank()), dims, nullptr, nullptr, 0, nullptr);
  if (!array) throw py::error_already_set();
  *data = py::detail::array_proxy(array)->data;
  return py::reinterpret_steal<py::object>(array);
}

}  // namespace inferkit
