// The border between C++ exceptions and functions that speak Python's C API.
#pragma once
#include <pybind11/pybind11.h>

#include <stdexcept>

#include "bindings/errors.h"

namespace inferkit {

/// Runs `body`, which returns a new reference, or null with Python's error set. What it throws becomes that error, as
/// pybind11 would translate it.
template <class F>
PyObject* guarded(F&& body) noexcept {
  try {
    return body();
  } catch (pybind11::error_already_set& error) {
    error.restore();
  } catch (const pybind11::builtin_exception& error) {
    error.set_error();
  } catch (const std::invalid_argument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::logic_error& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  } catch (const Refusal& refusal) {
    set_exception(refusal.status(), refusal.retry_after());
  } catch (...) {
    set_exception(current_exception_status());
  }
  return nullptr;
}

}  // namespace inferkit
