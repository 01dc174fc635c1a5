#include "bindings/number_arrays.h"

#include <pybind11/numpy.h>

#include <string>

#include "base/error.h"
#include "base/shape.h"
#include "bindings/array_in.h"
#include "bindings/array_out.h"
#include "bindings/errors.h"
#include "platform/float_environment.h"

namespace py = pybind11;

namespace inferkit {
namespace {

[[noreturn]] void refuse_numbers(std::string_view name, Reason reason, const std::string& what) {
  throw Error(ErrorCode::kValidation, reason, cat(array_label(name, ArrayRole::kInput), ": ", what));
}

bool is_list(PyObject* object) { return PyList_Check(object) || PyTuple_Check(object); }

bool is_number(PyObject* object) {
  return PyFloat_CheckExact(object) || PyLong_CheckExact(object) || PyBool_Check(object);
}

/// What the numbers in a list are.
struct Leaves {
  bool bools = false, ints = false, floats = false, others = false;
  /// As numpy has it: of several kinds the widest; bools among numbers are numbers.
  char kind() const { return floats ? 'f' : ints ? 'i' : bools ? 'b' : 0; }

  bool masked = false, too_deep = false;

  /// Runs no Python.
  void look(PyObject* object, size_t depth = 0) {
    if (!is_list(object)) {
      (PyFloat_CheckExact(object)  ? floats
       : PyBool_Check(object)      ? bools
       : PyLong_CheckExact(object) ? ints
                                   : others) = true;
      masked |= is_masked(object);
      return;
    }
    too_deep |= depth == Shape::kMaxRank;
    if (too_deep) return;  // also of a list that holds itself
    const Py_ssize_t count = PySequence_Fast_GET_SIZE(object);
    for (Py_ssize_t i = 0; i < count && !too_deep; ++i) look(PySequence_Fast_GET_ITEM(object, i), depth + 1);
  }
};

/// Of lists, tuples: numpy relies on the length of a list while it asks the elements for their arrays, which may run
/// Python that changes it. So may what collects garbage while this allocates: nothing is known of a list for longer
/// than one step, and no half-made tuple is shown.
py::object frozen(PyObject* object, size_t depth = 0) {
  if (!is_list(object)) return py::reinterpret_borrow<py::object>(object);
  if (depth == Shape::kMaxRank) throw py::value_error("it changed while it was read");
  py::list out;
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(object); ++i) {
    const auto item = py::reinterpret_borrow<py::object>(PySequence_Fast_GET_ITEM(object, i));
    out.append(frozen(item.ptr(), depth + 1));
  }
  return py::tuple(std::move(out));
}

/// numpy says nothing of numbers that float32 or float16 has no room for: they become infinite, and the checks of the
/// input speak of that.
class QuietOverflow {
 public:
  explicit QuietOverflow(const py::module_& numpy) : state_(numpy.attr("errstate")(py::arg("over") = "ignore")) {
    state_.attr("__enter__")();
  }
  ~QuietOverflow() {
    try {
      state_.attr("__exit__")(py::none(), py::none(), py::none());
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("numpy.errstate");
    } catch (...) {  // no memory for the call: the state of this thread stays quiet
    }
  }
  QuietOverflow(const QuietOverflow&) = delete;
  QuietOverflow& operator=(const QuietOverflow&) = delete;

 private:
  py::object state_;
};

/// 'b', 'i', 'u', 'f' or another letter, as numpy has them; 0 of what numpy does not have.
char kind_of(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return 'b';
    case DType::kI8:
    case DType::kI16:
    case DType::kI32:
    case DType::kI64:
      return 'i';
    case DType::kU8:
    case DType::kU16:
    case DType::kU32:
    case DType::kU64:
      return 'u';
    case DType::kF16:
    case DType::kF32:
    case DType::kF64:
      return 'f';
    default:
      return 0;
  }
}

/// numpy's bfloat16, where the package ml_dtypes brings it one; else null.
py::object numpy_bfloat16() {
  py::object found = numpy_dtype(DType::kBF16);
  return found.attr("kind").cast<std::string>() == "u" ? py::object() : found;  // bits of them
}

/// Whether numbers of this kind mean the same as `to`.
bool is_clear(char from, char to) {
  if (from == 'f') return to == 'f';
  if (from == 'i') return to == 'i' || to == 'u' || to == 'f';
  return from == 'b' && to == 'b';
}

}  // namespace

bool is_number_or_list(py::handle object) { return is_list(object.ptr()) || is_number(object.ptr()); }

py::object array_of_numbers(py::handle object, std::string_view name, DType dtype) {
  const std::string type = Py_TYPE(object.ptr())->tp_name;
  try {
    const py::module_ numpy = py::module_::import("numpy");
    Leaves leaves;
    leaves.look(object.ptr());
    if (leaves.too_deep) {
      refuse_numbers(name, Reason::kShape,
                     cat("this ", type, " is nested more than ", Shape::kMaxRank, " deep, or holds itself"));
    }
    if (leaves.masked) {
      refuse_numbers(name, Reason::kDtype,
                     "a masked array has no counterpart in a model; .filled(value) makes a plain one");
    }
    const py::object given = leaves.others ? frozen(object.ptr()) : py::reinterpret_borrow<py::object>(object);
    const py::object array = numpy.attr("asarray")(given);
    if (!py::isinstance<py::array>(array)) throw py::type_error("numpy made no array of it");
    const auto& made = static_cast<const py::array&>(array);
    const py::object bfloat16 = dtype == DType::kBF16 ? numpy_bfloat16() : py::object();
    const char wanted = bfloat16 ? 'f' : kind_of(dtype);
    if (leaves.others) {
      if (made.dtype().kind() == 'O') {
        refuse_numbers(name, Reason::kDtype,
                       cat("expected numbers, or lists of them; this ", type, " holds something else"));
      }
      return array;  // of arrays, which have a type
    }
    const char kind = leaves.kind();
    if (kind != 0 && !is_clear(kind, wanted)) {
      const char* of = kind == 'f' ? "float" : kind == 'b' ? "bool" : "int";
      refuse_numbers(name, Reason::kDtype,
                     cat("expected ", dtype_name(dtype), ", got Python's type ", of,
                         "; numpy.asarray(x, dtype=...) converts what you mean to be converted"));
    }
    const std::string target(dtype_name(dtype));
    if (wanted != 'i' && wanted != 'u') {
      const QuietOverflow quiet(numpy);
      const FloatEnvironment nearest(FloatEnvironment::kPlain);
      return made.attr("astype")(bfloat16 ? bfloat16 : py::str(target));
    }
    // numpy makes floats of ints of which some need a sign and some the 64th bit.
    const bool wide = made.dtype().kind() == 'f' || made.dtype().kind() == 'O';
    const py::object exact = wide ? numpy.attr("array")(object, py::arg("dtype") = "object") : array;
    const auto refuse_range = [&] {
      refuse_numbers(name, Reason::kDtype,
                     is_list(object.ptr()) ? cat("this ", type, " holds an int that ", target, " cannot hold")
                                           : cat("this int is beyond what ", target, " can hold"));
    };
    try {
      py::object out = exact.attr("astype")(target);
      if (!numpy.attr("array_equal")(out, exact).cast<bool>()) refuse_range();  // numpy below 2 wraps them around
      return out;
    } catch (py::error_already_set& error) {
      if (!error.matches(PyExc_OverflowError)) throw;
    }
    refuse_range();
    return {};
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_Exception) || error.matches(PyExc_MemoryError)) throw;
    refuse_numbers(name, Reason::kShape, cat("could not make an array of the ", type, ": ", describe(error)));
  }
}

}  // namespace inferkit
