#include "bindings/arguments.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "base/error.h"

namespace py = pybind11;

namespace inferkit {
namespace {

constexpr double kLongest = 1e9;  // seconds; what is longer never ends

const char* type_name(py::handle value) { return Py_TYPE(value.ptr())->tp_name; }

[[noreturn]] void wrong_type(py::handle value, const char* name, const char* what) {
  throw py::type_error(cat(name, " must be ", what, ", got ", type_name(value)));
}

/// A TypeError that a conversion has raised is said in our words; other errors are the object's own.
[[noreturn]] void not_converted(py::handle value, const char* name, const char* what) {
  if (!PyErr_ExceptionMatches(PyExc_TypeError)) throw py::error_already_set();
  PyErr_Clear();
  wrong_type(value, name, what);
}

constexpr const char* kBeyond = "one that 64 bits cannot hold";

bool is_bool(py::handle value) {
  if (PyBool_Check(value.ptr())) return true;
  const std::string_view type = type_name(value);  // numpy's, of version 1 and 2
  return type == "numpy.bool_" || type == "numpy.bool";
}

py::object to_index(py::handle value, const char* name) {
  if (is_bool(value) || !PyIndex_Check(value.ptr())) wrong_type(value, name, "an integer");
  auto index = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
  if (!index) not_converted(value, name, "an integer");
  return index;
}

}  // namespace

int64_t integer(py::handle value, const char* name, int64_t least, int64_t most) {
  const py::object index = to_index(value, name);
  int overflow = 0;
  const long long got = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
  if (got == -1 && PyErr_Occurred()) throw py::error_already_set();
  if (overflow == 0 && got >= least && got <= most) return got;
  const std::string shown = overflow == 0 ? std::to_string(got) : kBeyond;
  throw std::invalid_argument(most == std::numeric_limits<int64_t>::max() && overflow <= 0
                                  ? cat(name, " must be at least ", least, ", got ", shown)
                                  : cat(name, " must be between ", least, " and ", most, ", got ", shown));
}

uint64_t natural(py::handle value, const char* name, uint64_t least) {
  const py::object index = to_index(value, name);
  const unsigned long long got = PyLong_AsUnsignedLongLong(index.ptr());
  if (got == ~0ULL && PyErr_Occurred()) {
    if (!PyErr_ExceptionMatches(PyExc_OverflowError)) throw py::error_already_set();
    PyErr_Clear();
    throw std::invalid_argument(cat(name, " must be between ", least, " and 2**64 - 1, got another integer"));
  }
  if (got < least) throw std::invalid_argument(cat(name, " must be at least ", least, ", got ", got));
  return got;
}

int64_t integer_or(int64_t otherwise, py::handle value, const char* name, int64_t least, int64_t most) {
  return value.is_none() ? otherwise : integer(value, name, least, most);
}

double number(py::handle value, const char* name, const char* what) {
  if (is_bool(value)) wrong_type(value, name, what);
  const double got = PyFloat_AsDouble(value.ptr());
  if (got == -1.0 && PyErr_Occurred()) {
    if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
      PyErr_Clear();
      throw std::invalid_argument(cat(name, " must be ", what, ", got an integer that no float can hold"));
    }
    not_converted(value, name, what);
  }
  if (std::isnan(got)) throw std::invalid_argument(cat(name, " must be ", what, ", got NaN"));
  return got;
}

bool flag(py::handle value, const char* name) {
  if (value.ptr() == Py_True) return true;
  if (value.ptr() == Py_False) return false;
  if (!is_bool(value)) wrong_type(value, name, "True or False");
  const int truth = PyObject_IsTrue(value.ptr());
  if (truth < 0) throw py::error_already_set();
  return truth != 0;
}

std::string_view text_view(py::handle value, const char* name) {
  if (!PyUnicode_Check(value.ptr())) wrong_type(value, name, "a str");
  Py_ssize_t size = 0;
  const char* data = PyUnicode_AsUTF8AndSize(value.ptr(), &size);
  if (!data) {
    if (!PyErr_ExceptionMatches(PyExc_UnicodeError)) throw py::error_already_set();
    PyErr_Clear();
    throw std::invalid_argument(cat(name, " holds a lone surrogate, which UTF-8 cannot encode"));
  }
  return {data, static_cast<size_t>(size)};
}

std::string text(py::handle value, const char* name) { return std::string(text_view(value, name)); }

/// To the nearest: 0.029 s are 29 ms, and not a nanosecond less, which a clock that is moved by hand would lack for
/// ever.
static Nanos nanos(double seconds) { return std::llround(seconds * 1e9); }

Nanos seconds(py::handle value, const char* name) {
  const double got = number(value, name, "a number of seconds");
  if (got < 0) throw std::invalid_argument(cat(name, " must be a number of seconds that is not negative, got ", got));
  return got > kLongest ? kNever : nanos(got);
}

Nanos seconds_or_never(py::handle value, const char* name) { return value.is_none() ? kNever : seconds(value, name); }

Nanos deadline_from(py::handle value, Nanos now, const char* name) {
  if (!value || value.is_none()) return kNever;
  const double got = number(value, name, "a number of seconds, or None");
  return got > kLongest ? kNever : now + nanos(std::max(got, -1e6));
}

}  // namespace inferkit
