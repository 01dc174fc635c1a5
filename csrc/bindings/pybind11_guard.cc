// What pybind11 leaves out: that Python has no memory, and that __init__() is called twice. The linker puts these
// functions in front of Python's own
// (--wrap, see cmake/Python.cmake).
#include <pybind11/pybind11.h>

#include <optional>
#include <string_view>
#include <utility>

#include "bindings/bound.h"
#include "bindings/signature.h"

namespace py = pybind11;

namespace inferkit {
namespace {

/// What every function that pybind11 makes calls first, of which we have the address when it makes one. Written with
/// the GIL held, as the module is imported, and the same every time.
_PyCFunctionFastWithKeywords dispatch = nullptr;

/// A MemoryError that it took for a value of a type that Python does not have comes back in place of its TypeError.
void restore_memory_error() {
  if (!PyErr_ExceptionMatches(PyExc_TypeError)) return;
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  PyObject* cause = value && PyExceptionInstance_Check(value) ? PyException_GetCause(value) : nullptr;
  if (cause && PyErr_GivenExceptionMatches(cause, PyExc_MemoryError)) {
    std::swap(value, cause);
    Py_SETREF(type, Py_NewRef(reinterpret_cast<PyObject*>(Py_TYPE(value))));
    Py_CLEAR(trace);
  }
  Py_XDECREF(cause);
  PyErr_Restore(type, value, trace);
}

/// The user is told what the function takes as Python writes it, not as pybind11 does.
void plain_type_error() {
  if (!PyErr_ExceptionMatches(PyExc_TypeError)) return;
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  auto held_type = py::reinterpret_steal<py::object>(type), held = py::reinterpret_steal<py::object>(value),
       held_trace = py::reinterpret_steal<py::object>(trace);
  if (held && Py_IS_TYPE(value, reinterpret_cast<PyTypeObject*>(PyExc_TypeError))) {  // of no class of the user's
    const auto text = py::reinterpret_steal<py::object>(PyObject_Str(value));
    if (!text) throw py::error_already_set();
    const auto utf8 = py::reinterpret_steal<py::object>(
        PyUnicode_AsEncodedString(text.ptr(), "utf-8", "backslashreplace"));  // the user's texts are in it
    if (!utf8) throw py::error_already_set();
    const std::string_view message(PyBytes_AS_STRING(utf8.ptr()), static_cast<size_t>(PyBytes_GET_SIZE(utf8.ptr())));
    if (const auto plain = plain_refusal(message)) {
      PyErr_SetString(PyExc_TypeError, plain->c_str());
      return;
    }
  }
  PyErr_Restore(held_type.release().ptr(), held.release().ptr(), held_trace.release().ptr());
}

/// It says which arguments it would have taken outside of its own handlers, and an exception there would end the
/// process.
PyObject* guarded_dispatch(PyObject* self, PyObject* const* arguments, Py_ssize_t count, PyObject* names) {
  PyObject* result = guarded([&] { return dispatch(self, arguments, count, names); });
  if (result) return result;
  restore_memory_error();
  return guarded([]() -> PyObject* {
    plain_type_error();
    return nullptr;
  });
}

/// Whether a C++ object is in it. Of an object of several of our classes, which are made one by one, never.
bool is_made(PyObject* object) {
  if (!PyObject_TypeCheck(object, reinterpret_cast<PyTypeObject*>(py::detail::get_internals().instance_base))) {
    return false;
  }
  const auto* instance = reinterpret_cast<const py::detail::instance*>(object);
  return instance->simple_layout && instance->simple_holder_constructed;
}

/// A second time it would make nothing, and say nothing: what a class stores beside it would be of another object.
PyObject* guarded_init(PyObject* self, PyObject* const* arguments, Py_ssize_t count, PyObject* names) {
  if (PyVectorcall_NARGS(static_cast<size_t>(count)) > 0 && is_made(arguments[0])) {
    PyErr_Format(PyExc_TypeError, "this %s is initialised already: make another one",
                 short_name(Py_TYPE(arguments[0])));
    return nullptr;
  }
  return guarded_dispatch(self, arguments, count, names);
}

PyCFunction as_method(_PyCFunctionFastWithKeywords function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

}  // namespace
}  // namespace inferkit

extern "C" PyObject* __real_PyCMethod_New(PyMethodDef* method, PyObject* self, PyObject* module, PyTypeObject* type);
extern "C" PyObject* __wrap_PyCMethod_New(PyMethodDef* method, PyObject* self, PyObject* module, PyTypeObject* type) {
  using namespace inferkit;
  constexpr int kDispatched = METH_FASTCALL | METH_KEYWORDS;
  if ((method->ml_flags & kDispatched) == kDispatched) {
    dispatch = reinterpret_cast<_PyCFunctionFastWithKeywords>(reinterpret_cast<void (*)()>(method->ml_meth));
    method->ml_meth = as_method(std::string_view(method->ml_name) == "__init__" ? guarded_init : guarded_dispatch);
  }
  return __real_PyCMethod_New(method, self, module, type);
}

extern "C" PyObject* __real_PyUnicode_InternFromString(const char* text);
/// It compares the names of a call's arguments with the answer, which it does not look at.
extern "C" PyObject* __wrap_PyUnicode_InternFromString(const char* text) {
  PyObject* interned = __real_PyUnicode_InternFromString(text);
  if (!interned) throw pybind11::error_already_set();
  return interned;
}
