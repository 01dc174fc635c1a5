#include "bindings/array_in.h"

#include <pybind11/numpy.h>

#include <optional>

#include "base/counted.h"
#include "base/error.h"
#include "base/small_types.h"
#include "bindings/array_out.h"
#include "bindings/attributes.h"
#include "bindings/device_arrays.h"
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

[[noreturn]] void refuse(std::string_view name, ArrayRole role, const std::string& what) {
  throw Error(ErrorCode::kValidation, Reason::kDtype, cat(array_label(name, role), ": ", what));
}

/// Of ml_dtypes, told as numpy does: by the name of the scalar type. Those that packages add to numpy have numbers of
/// their own; a class of Python can only give its name to records.
std::optional<DType> small_dtype_of(const py::detail::PyArrayDescr_Proxy& descr) {
  constexpr int kAdded = 256;  // NPY_USERDEF
  if (descr.type_num < kAdded || descr.byteorder == '>' || !PyType_Check(descr.typeobj)) return std::nullopt;
  const std::string_view name = reinterpret_cast<PyTypeObject*>(descr.typeobj)->tp_name;
  const auto dtype = dtype_from_name(name.substr(name.rfind('.') + 1));
  return dtype && (*dtype == DType::kBF16 || is_small(*dtype)) ? dtype : std::nullopt;
}

/// A tensor of torch's bfloat16, which numpy cannot take over, as torch's integers of its bits, of a type that every
/// torch has; else null.
py::object bits_of_bfloat16(py::handle object) {
  const py::object dtype = find_attribute(object, "dtype");
  PyObject* modules = PyImport_GetModuleDict();
  PyObject* torch = modules ? PyDict_GetItemString(modules, "torch") : nullptr;  // whoever made one has imported it
  if (!dtype || !torch) return {};
  const py::object bfloat16 = find_attribute(torch, "bfloat16");
  if (!bfloat16 || dtype.ptr() != bfloat16.ptr()) return {};
  return object.attr("view")(py::handle(torch).attr("int16"));
}

py::object numpy_function(const char* name) { return py::module_::import("numpy").attr(name); }

}  // namespace

py::object without_negative_bit(py::handle object) {
  const py::object is_negative = find_attribute(object, "is_neg");
  if (!is_negative || !PyCallable_Check(is_negative.ptr()) || is_negative().ptr() != Py_True) {
    return py::reinterpret_borrow<py::object>(object);
  }
  return object.attr("resolve_neg")();
}

bool is_masked(PyObject* object) {
  if (Py_TYPE(object) == Api::get().PyArray_Type_ || !Api::get().PyArray_Check_(object)) return false;
  // Whoever made one has imported numpy.ma, to its end.
  PyObject* modules = PyImport_GetModuleDict();
  PyObject* ma = modules ? PyDict_GetItemString(modules, "numpy.ma") : nullptr;
  const py::object type = ma ? find_attribute(ma, "MaskedArray") : py::object();
  // Not isinstance(), which asks the array for its __class__.
  return type && PyType_Check(type.ptr()) &&
         PyType_IsSubtype(Py_TYPE(object), reinterpret_cast<PyTypeObject*>(type.ptr()));
}

std::string array_label(std::string_view name, ArrayRole role) {
  switch (role) {
    case ArrayRole::kOutput:
      return cat("output '", name, "'");
    case ArrayRole::kTarget:
      return cat("out['", name, "']");
    case ArrayRole::kInput:
      break;
  }
  return cat("input '", name, "'");
}

/// Of what could not be read, as its values are on a GPU; returns where they are not.
static void refuse_from_device(py::handle object, std::string_view name, ArrayRole role) {
  if (!lies_on_device(object.ptr())) return;
  refuse(name, role,
         cat("the ", Py_TYPE(object.ptr())->tp_name, " lies in the memory of a CUDA device; ",
             role == ArrayRole::kInput ? "model(x) of a model that is loaded there takes it as it is, a Batcher takes "
                                         "arrays of the host: "
                                       : "expected an array of the host: ",
             "x.cpu() of torch, or cupy.asnumpy(x), copies it there"));
}

py::object to_array(py::handle object, std::string_view name, ArrayRole role) {
  const Api& api = Api::get();  // no static of our own: its guard would be held where get() gives up the GIL
  if (api.PyArray_Check_(object.ptr())) return py::reinterpret_borrow<py::object>(object);
  py::object array;
  try {
    if (PyType_Check(object.ptr())) {
      // What a class has of them is its objects'.
    } else if (find_attribute(object, "__dlpack__")) {
      const py::object tensor = without_negative_bit(object);
      if (const py::object bits = bits_of_bfloat16(tensor)) {
        array = numpy_function("from_dlpack")(bits).attr("view")(numpy_dtype(DType::kBF16));
      } else {
        array = numpy_function("from_dlpack")(tensor);
      }
    } else if (PyObject_CheckBuffer(object.ptr()) && !PyBytes_Check(object.ptr()) && !PyByteArray_Check(object.ptr())) {
      array = numpy_function("asarray")(py::memoryview(py::reinterpret_borrow<py::object>(object)));
    } else if (find_attribute(object, "__array__") || find_attribute(object, "__array_interface__")) {
      array = numpy_function("asanyarray")(object);  // a masked one stays one
    }
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_Exception) || error.matches(PyExc_MemoryError)) throw;
    refuse_from_device(object, name, role);
    refuse(name, role, cat("could not read the ", Py_TYPE(object.ptr())->tp_name, ": ", describe(error)));
  }
  if (!array || !api.PyArray_Check_(array.ptr())) {
    refuse_from_device(object, name, role);
    if (PyBytes_Check(object.ptr()) || PyByteArray_Check(object.ptr())) {
      refuse(
          name, role,
          cat("expected a numpy array, got ", Py_TYPE(object.ptr())->tp_name,
              ", which has no dtype and no shape: numpy.frombuffer(x, dtype=...).reshape(...) makes an array of it"));
    }
    refuse(name, role,
           cat("expected a numpy array, or an object with __dlpack__, __array__ or the buffer protocol",
               role == ArrayRole::kInput ? ", or numbers or lists of them; got " : "; got ",
               Py_TYPE(object.ptr())->tp_name, ". numpy.asarray(x, dtype=...) makes one"));
  }
  return array;
}

Shape shape_of_array(py::handle array, std::string_view name, ArrayRole role) {
  if (is_masked(array.ptr())) {
    refuse(name, role, "a masked array has no counterpart in a model; .filled(value) makes a plain one");
  }
  const auto* proxy = py::detail::array_proxy(array.ptr());
  if (static_cast<size_t>(proxy->nd) > Shape::kMaxRank) {
    throw Error(ErrorCode::kValidation, Reason::kShape,
                cat(array_label(name, role), " has ", counted(proxy->nd, "dimension"), "; at most ", Shape::kMaxRank,
                    " are supported"));
  }
  Shape shape;
  for (int i = 0; i < proxy->nd; ++i) shape.push_back(proxy->dimensions[i]);
  return shape;
}

StridedView view_of(py::handle array, std::string_view name, DType expected, ArrayRole role) {
  StridedView view;
  view.shape = shape_of_array(array, name, role);
  const auto* proxy = py::detail::array_proxy(array.ptr());
  const auto* descr = py::detail::array_descriptor_proxy(proxy->descr);
  auto dtype = dtype_of(*descr);
  if (!dtype) dtype = small_dtype_of(*descr);
  if (!dtype && (descr->kind == 'U' || descr->kind == 'S')) {
    refuse(name, role,
           cat("an array of ", descr->kind == 'U' ? "strings" : "bytes", " (dtype ", str_of(proxy->descr),
               "), where numbers are expected"));
  }
  if (!dtype) {
    throw Error(ErrorCode::kValidation, Reason::kDtype,
                cat(array_label(name, role), " has dtype ", str_of(proxy->descr), "; expected ", dtype_name(expected),
                    role == ArrayRole::kTarget ? "" : cat(": convert it with .astype('", dtype_name(expected), "')")));
  }
  view.dtype = *dtype;
  view.data = proxy->data;
  for (int i = 0; i < proxy->nd; ++i) view.byte_strides[static_cast<size_t>(i)] = proxy->strides[i];
  return view;
}

bool is_writable(py::handle array) {
  return (py::detail::array_proxy(array.ptr())->flags & Api::NPY_ARRAY_WRITEABLE_) != 0;
}

bool lies_as_tensor(const StridedView& view) {
  const size_t size = dtype_size(view.dtype);
  return view.is_contiguous() && reinterpret_cast<uintptr_t>(view.data) % size == 0;
}

bool usable_in_place(const StridedView& view) { return view.dtype != DType::kBool && lies_as_tensor(view); }

}  // namespace inferkit
