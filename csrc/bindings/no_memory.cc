// Where Python has no memory, and pybind11 counts on it. The linker puts these functions in front of Python's own
// (--wrap, see cmake/Python.cmake).
#include <pybind11/pybind11.h>

#include "bindings/guarded.h"

namespace inferkit {
namespace {

/// What every function that pybind11 makes calls first, of which we have the address when it makes one. Written with
/// the GIL held, as the module is imported, and the same every time.
_PyCFunctionFastWithKeywords dispatch = nullptr;

/// It says which arguments it would have taken outside of its own handlers, and an exception there would end the
/// process.
PyObject* guarded_dispatch(PyObject* self, PyObject* const* arguments, Py_ssize_t count, PyObject* names) {
  return guarded([&] { return dispatch(self, arguments, count, names); });
}

}  // namespace
}  // namespace inferkit

extern "C" PyObject* __real_PyCMethod_New(PyMethodDef* method, PyObject* self, PyObject* module, PyTypeObject* type);
extern "C" PyObject* __wrap_PyCMethod_New(PyMethodDef* method, PyObject* self, PyObject* module, PyTypeObject* type) {
  using namespace inferkit;
  constexpr int kDispatched = METH_FASTCALL | METH_KEYWORDS;
  const auto ours = reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(guarded_dispatch));
  if ((method->ml_flags & kDispatched) == kDispatched && method->ml_meth != ours) {
    dispatch = reinterpret_cast<_PyCFunctionFastWithKeywords>(reinterpret_cast<void (*)()>(method->ml_meth));
    method->ml_meth = ours;
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
