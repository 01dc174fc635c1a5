// Python types of our own making, for objects that pybind11's would be too slow for, or too opaque to the garbage
// collector.
#pragma once
#include <pybind11/pybind11.h>

#include <new>
#include <utility>

namespace inferkit {

/// Lives as long as the process.
inline PyTypeObject* make_type(PyType_Spec& spec) {
  PyObject* type = PyType_FromSpec(&spec);
  if (!type) throw pybind11::error_already_set();
  return reinterpret_cast<PyTypeObject*>(type);
}

/// A name that lives as long.
inline PyObject* intern(const char* name) {
  PyObject* interned = PyUnicode_InternFromString(name);
  if (!interned) throw pybind11::error_already_set();
  return interned;
}

/// The Python object that an object of one of these types is.
inline PyObject* object_of(void* object) { return static_cast<PyObject*>(object); }

/// A method that takes its arguments as an array, as a table of methods holds it.
inline PyCFunction fast_method(PyObject* (*method)(PyObject*, PyObject* const*, Py_ssize_t, PyObject*)) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(method));
}

/// An object of a type that the collector looks into, which it does from PyObject_GC_Track() on. Throws MemoryError.
template <class T>
T* new_gc_object(PyTypeObject* type) {
  T* object = PyObject_GC_New(T, type);
  if (!object) throw pybind11::error_already_set();
  return object;
}

/// The end of such an object, whose members are gone.
inline void free_gc_object(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  PyObject_GC_Del(object);
  Py_DECREF(reinterpret_cast<PyObject*>(type));
}

/// The first of several errors, so that what has to be done after it can be done before it is raised.
class FirstError {
 public:
  FirstError() = default;
  ~FirstError() {
    Py_XDECREF(type_);
    Py_XDECREF(value_);
    Py_XDECREF(trace_);
  }
  FirstError(const FirstError&) = delete;
  FirstError& operator=(const FirstError&) = delete;

  explicit operator bool() const { return type_ != nullptr; }
  /// Takes the error that is set, or forgets it where there was one before: not what is to stop the program
  /// (KeyboardInterrupt), where that was none.
  void take() {
    const auto stops = [](PyObject* type) { return !PyErr_GivenExceptionMatches(type, PyExc_Exception); };
    if (type_ && (stops(type_) || PyErr_ExceptionMatches(PyExc_Exception))) return PyErr_Clear();
    const FirstError dropped(std::exchange(type_, nullptr), std::exchange(value_, nullptr),
                             std::exchange(trace_, nullptr));
    PyErr_Fetch(&type_, &value_, &trace_);
  }
  /// Raises it, where there is one.
  void raise() {
    if (!type_) return;
    PyErr_Restore(std::exchange(type_, nullptr), std::exchange(value_, nullptr), std::exchange(trace_, nullptr));
    throw pybind11::error_already_set();
  }

 private:
  FirstError(PyObject* type, PyObject* value, PyObject* trace) : type_(type), value_(value), trace_(trace) {}

  PyObject *type_ = nullptr, *value_ = nullptr, *trace_ = nullptr;
};

}  // namespace inferkit
