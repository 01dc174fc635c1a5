// The direct way through a model: arrays in, checks, run on the caller's thread, arrays out.
#pragma once
#include <pybind11/pybind11.h>

#include <span>

#include "bindings/py_model.h"

namespace inferkit {

/// Runs `model` on one object per input, in order. `out` holds one preallocated array per output or null; it may be
/// empty. Returns one array per output in a tuple. Throws Error.
pybind11::tuple call_model(const PyModel& model, std::span<PyObject* const> arguments, std::span<PyObject* const> out);

}  // namespace inferkit
