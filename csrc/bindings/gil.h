// Python objects in the hands of threads that do not hold the GIL.
#pragma once
#include <pybind11/pybind11.h>

namespace inferkit {

/// Deletes what owns Python objects wherever it dies; a thread that still holds one after the interpreter is gone leaks
/// it.
template <class T>
struct GilDeleter {
  void operator()(T* object) const {
    if (!Py_IsInitialized()) return;
    const pybind11::gil_scoped_acquire gil;
    delete object;
  }
};

}  // namespace inferkit
