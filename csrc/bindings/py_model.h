// What a Python Model object holds: a runner, and the checks that its inputs pass.
#pragma once
#include <pybind11/pybind11.h>

#include <memory>

#include "base/validation.h"
#include "engine/model/model.h"
#include "engine/runner.h"

namespace inferkit {

struct PyModel {
  std::shared_ptr<Runner> runner;
  std::shared_ptr<Model> native;  // the same object, where the runner is a compiled model; else null
  InputChecks checks;
};

/// The Python class; set once, at import.
PyTypeObject* model_type();
void set_model_type(PyTypeObject* type);

/// The PyModel of a Python object that is one; throws TypeError otherwise. Needs the GIL.
PyModel& py_model(pybind11::handle object);

}  // namespace inferkit
