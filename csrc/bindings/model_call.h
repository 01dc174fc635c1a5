// The direct way through a model: arrays in, checks, run on the caller's thread, arrays out.
#pragma once
#include <pybind11/pybind11.h>

#include <span>

#include "bindings/port_vector.h"
#include "bindings/py_model.h"
#include "engine/model/explain.h"

namespace inferkit {

/// One array per output. Nobody else sees them before all are there: a tuple would be shown by the garbage collector to
/// whatever Python runs meanwhile, in the model's callable or another thread.
using Results = PortVector<pybind11::object>;

/// What stands for an input that is left out. Needs the GIL.
pybind11::object fallback_array(const TensorView& value);

/// Runs `model` on one object per input, in order. `out` holds one preallocated array per output or null; it may be
/// empty. Throws Error.
Results call_model(const PyModel& model, std::span<PyObject* const> arguments, std::span<PyObject* const> out);

/// model(a, b): the class's tp_call itself, since pybind11's argument handling would cost as much as a small model.
PyObject* call_model_slot(PyObject* self, PyObject* args, PyObject* kwargs);

/// Runs it on the same and measures; `model` must be native.
Explained profile_call(const PyModel& model, std::span<PyObject* const> arguments, int64_t runs);

/// Runs it on the same in a precision that need not be its own, as Model::run_in; `model` must be native.
Results run_in_call(const PyModel& model, std::span<PyObject* const> arguments, Precision precision);

}  // namespace inferkit
