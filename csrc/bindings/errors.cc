#include "bindings/errors.h"

#include <optional>
#include <system_error>

#include "base/file_error.h"
#include "bindings/cause.h"
#include "bindings/event_loop.h"
#include "bindings/exit.h"
#include "bindings/path.h"

namespace py = pybind11;

namespace inferkit {
namespace {

std::string_view class_name(ErrorCode code) {
  for (const ErrorRow& row : error_table()) {
    if (row.code == code) return row.python_class;
  }
  return "InferkitError";
}

/// A module of ours, kept for good once it was asked for: at the end of the interpreter nothing can be imported.
py::handle our_module(const char* name, PyObject*& kept) {
  if (!kept) kept = py::module_::import(name).release().ptr();
  return kept;
}
py::handle text_module() {
  static PyObject* kept = nullptr;
  return our_module("inferkit._text", kept);
}
py::handle errors_module() {
  static PyObject* kept = nullptr;
  return our_module("inferkit._errors", kept);
}

/// Messages quote names of files and tensors, and what callables say. All of it ends in logs and on terminals, so what
/// is not to be seen there is escaped; a line break stays where it begins an item of a list of ours.
py::object text(const std::string& message) {
  constexpr std::string_view kItem = "\n  - ";
  const py::object printable = text_module().attr("printable");
  const auto decoded = [](std::string_view part) {
    PyObject* out = PyUnicode_DecodeUTF8(part.data(), static_cast<Py_ssize_t>(part.size()), "replace");
    if (!out) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(out);
  };
  py::list parts;
  std::string_view rest = message;
  for (size_t at; (at = rest.find(kItem)) != std::string_view::npos; rest.remove_prefix(at + kItem.size())) {
    parts.append(printable(decoded(rest.substr(0, at))));
  }
  parts.append(printable(decoded(rest)));
  return py::str(std::string(kItem)).attr("join")(parts);
}

/// Sets the exception that `make` returns, or what keeps it from that.
void set_made(auto&& make) noexcept {
  try {
    const py::object value = make();
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(value.ptr())), value.ptr());
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (...) {
    PyErr_NoMemory();
  }
}

void set_os_error(const std::system_error& error) noexcept {
  // OSError(errno, message) chooses FileNotFoundError, PermissionError... by itself.
  set_made([&] {
    const int code = error.code().value();
    if (const auto* of = dynamic_cast<const FileError*>(&error)) {
      return py::handle(PyExc_OSError)(code, error.code().message(), file_name(of->path()));
    }
    return py::handle(PyExc_OSError)(code, text(error.what()));
  });
}

}  // namespace

namespace {
/// The bytes of `text`, a new reference or null with an error set, which is cleared if it is an Exception.
std::optional<std::string> encoded(PyObject* text) {
  const auto owned = py::reinterpret_steal<py::object>(text);
  // It may hold what UTF-8 has no bytes for: the surrogates of an undecodable file name.
  const auto bytes =
      py::reinterpret_steal<py::object>(text ? PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace") : nullptr);
  if (bytes) {
    return std::string(PyBytes_AS_STRING(bytes.ptr()), static_cast<size_t>(PyBytes_GET_SIZE(bytes.ptr())));
  }
  if (!PyErr_ExceptionMatches(PyExc_Exception)) throw py::error_already_set();
  PyErr_Clear();
  return std::nullopt;
}

std::string or_its_type(std::optional<std::string> text, py::handle object) {
  return text ? std::move(*text) : cat("<", Py_TYPE(object.ptr())->tp_name, " that cannot be printed>");
}
}  // namespace

std::string str_of(py::handle object) { return or_its_type(encoded(PyObject_Str(object.ptr())), object); }
std::string repr_of(py::handle object) { return or_its_type(encoded(PyObject_Repr(object.ptr())), object); }

std::string describe(const py::error_already_set& error) {
  const py::handle type = error.type();
  const std::string kind =
      PyType_Check(type.ptr()) ? reinterpret_cast<PyTypeObject*>(type.ptr())->tp_name : "an exception";
  const auto said = encoded(PyObject_Str(error.value().ptr()));
  if (!said) return kind + " (which cannot be printed)";
  return said->empty() ? kind : kind + ": " + *said;
}

py::object exception_of(const py::error_already_set& error) {
  if (error.trace()) PyException_SetTraceback(error.value().ptr(), error.trace().ptr());
  return error.value();
}

bool asks_to_stop(const Status& status) {
  const RaisedCause* cause = cause_of(status);
  return cause &&
         (py::isinstance(cause->value, PyExc_KeyboardInterrupt) || py::isinstance(cause->value, PyExc_SystemExit));
}

py::object make_exception(const Status& status, Nanos retry_after) {
  const RaisedCause* cause = cause_of(status);
  // What asks the program to stop must not turn into an error that programs catch. One object, however often it is
  // raised: with the trace that it came with, not with those of all who raised it before.
  if (asks_to_stop(status)) {
    PyException_SetTraceback(cause->value.ptr(), cause->trace ? cause->trace.ptr() : Py_None);
    return cause->value;
  }
  // The exit has closed the batcher under a daemon thread: it ends as quietly as the process goes on to end. The tasks
  // of a loop stay where they are, as asyncio would tell of any exception.
  if (status.code == ErrorCode::kClosed && left_behind()) {
    if (EventLoop::runs_here()) hang_with_gil();
    return py::handle(PyExc_SystemExit)();
  }
  const py::handle errors = errors_module();
  const py::object type = errors.attr(py::str(std::string(class_name(status.code))));
  py::object value = status.reason == Reason::kNone
                         ? type(text(status.message))
                         : type(text(status.message), py::arg("reason") = std::string(reason_name(status.reason)));
  if (cause) PyException_SetCause(value.ptr(), py::object(cause->value).release().ptr());
  if (retry_after != kNever) value.attr("retry_after") = double(retry_after) * 1e-9;
  return value;
}

void set_exception(const Status& status, Nanos retry_after) noexcept {
  // What Python has set says what it was: a MemoryError of pybind11's, or what a signal handler raised to stop the
  // work.
  if (!PyErr_Occurred()) set_made([&] { return make_exception(status, retry_after); });
}

void bind_errors(py::module_& m) {
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Error& error) {
      set_exception(error.status());
    } catch (const std::system_error& error) {
      set_os_error(error);
    } catch (const std::runtime_error&) {
      // pybind11's for what Python could not do: Python has said it better.
      if (!PyErr_Occurred()) throw;
    }
  });
  m.def(
      "error_table",
      [] {
        py::list rows;
        for (const ErrorRow& row : error_table()) {
          rows.append(py::make_tuple(std::string(row.python_class), row.http_status));
        }
        return rows;
      },
      "Every error code as ``(class name, HTTP status)``.");
  m.def(
      "reasons",
      [] {
        py::list names;
        for (int i = 1; i < kReasonCount; ++i) names.append(std::string(reason_name(static_cast<Reason>(i))));
        return names;
      },
      "The reasons that a ValidationError or an OutputError may give.");
}

}  // namespace inferkit
