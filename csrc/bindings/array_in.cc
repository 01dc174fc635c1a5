#include "bindings/array_in.h"

#include <pybind11/numpy.h>

#include <optional>

#include "base/error.h"
#include "base/small_types.h"
#include "bindings/errors.h"

namespace py = pybind11;

namespace inferkit {
namespace {

using Api = py::detail::npy_api;

std::optional<DType> dtype_of(const py::detail::PyArrayDescr_Proxy& descr) {
  if (descr.byteorder == '>') return std::nullopt;
  switch (descr.type_num) {
    case Api::NPY_BOOL_:
      return DType::kBool;
    case Api::NPY_BYTE_:
      return DType::kI8;
    case Api::NPY_UBYTE_:
      return DType::kU8;
    case Api::NPY_SHORT_:
      return DType::kI16;
    case Api::NPY_USHORT_:
      return DType::kU16;
    case Api::NPY_INT_:
      return DType::kI32;
    case Api::NPY_UINT_:
      return DType::kU32;
    case Api::NPY_LONG_:
      return sizeof(long) == 8 ? DType::kI64 : DType::kI32;
    case Api::NPY_ULONG_:
      return sizeof(long) == 8 ? DType::kU64 : DType::kU32;
    case Api::NPY_LONGLONG_:
      return DType::kI64;
    case Api::NPY_ULONGLONG_:
      return DType::kU64;
    case Api::NPY_FLOAT_:
      return DType::kF32;
    case Api::NPY_DOUBLE_:
      return DType::kF64;
    case 23:  // NPY_HALF
      return DType::kF16;
    default:
      return std::nullopt;
  }
}

[[noreturn]] void refuse(std::string_view name, const std::string& what) {
  throw Error(ErrorCode::kValidation, Reason::kDtype, cat("input '", name, "': ", what));
}

/// A masked array is an array to numpy's C interface, which knows nothing of the mask.
bool is_masked(PyObject* array) {
  if (Py_TYPE(array) == Api::get().PyArray_Type_) return false;
  // Whoever made one has imported numpy.ma.
  PyObject* modules = PyImport_GetModuleDict();
  PyObject* ma = modules ? PyDict_GetItemString(modules, "numpy.ma") : nullptr;
  return ma && py::isinstance(array, py::handle(ma).attr("MaskedArray"));
}

ArrayIn from_numpy(PyObject* array, std::string_view name, py::object keep) {
  if (is_masked(array)) refuse(name, "a masked array has no counterpart in a model; .filled(value) makes a plain one");
  const auto* proxy = py::detail::array_proxy(array);
  auto dtype = dtype_of(*py::detail::array_descriptor_proxy(proxy->descr));
  if (!dtype) {
    const std::string text = py::str(py::handle(proxy->descr));
    dtype = dtype_from_name(text);  // ml_dtypes
    if (!dtype || (*dtype != DType::kBF16 && !is_small(*dtype))) {
      refuse(name, cat("an array of dtype ", text, " has no counterpart in a model; convert it with .astype()"));
    }
  }
  if (static_cast<size_t>(proxy->nd) > Shape::kMaxRank) {
    throw Error(ErrorCode::kValidation, Reason::kShape,
                cat("input '", name, "' has ", proxy->nd, " dimensions; at most ", Shape::kMaxRank, " are supported"));
  }
  ArrayIn out;
  out.view.dtype = *dtype;
  out.view.data = proxy->data;
  for (int i = 0; i < proxy->nd; ++i) {
    out.view.shape.push_back(proxy->dimensions[i]);
    out.view.byte_strides[static_cast<size_t>(i)] = proxy->strides[i];
  }
  out.keep = std::move(keep);
  return out;
}

py::object numpy_function(const char* name) { return py::module_::import("numpy").attr(name); }

}  // namespace

ArrayIn array_in(py::handle object, std::string_view name) {
  const Api& api = Api::get();  // no static of our own: its guard would be held where get() gives up the GIL
  if (api.PyArray_Check_(object.ptr()))
    return from_numpy(object.ptr(), name, py::reinterpret_borrow<py::object>(object));
  py::object array;
  try {
    if (py::hasattr(object, "__dlpack__")) {
      array = numpy_function("from_dlpack")(object);
    } else if (PyObject_CheckBuffer(object.ptr()) && !PyBytes_Check(object.ptr()) && !PyByteArray_Check(object.ptr())) {
      array = numpy_function("asarray")(py::memoryview(py::reinterpret_borrow<py::object>(object)));
    }
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_Exception)) throw;  // KeyboardInterrupt
    refuse(name, cat("could not read the ", Py_TYPE(object.ptr())->tp_name, ": ", describe(error)));
  }
  if (!array || !api.PyArray_Check_(array.ptr())) {
    refuse(name, cat("expected a numpy array, or an object with __dlpack__ or the buffer protocol; got ",
                     Py_TYPE(object.ptr())->tp_name, ". numpy.asarray(x, dtype=...) makes one"));
  }
  PyObject* raw = array.ptr();
  return from_numpy(raw, name, std::move(array));
}

bool lies_as_tensor(const StridedView& view) {
  const size_t size = dtype_size(view.dtype);
  return view.is_contiguous() && reinterpret_cast<uintptr_t>(view.data) % size == 0;
}

bool usable_in_place(const StridedView& view) { return view.dtype != DType::kBool && lies_as_tensor(view); }

}  // namespace inferkit
