// What a Python Model object holds: a runner, and the checks that its inputs pass.
#pragma once
#include <pybind11/pybind11.h>

#include <memory>
#include <vector>

#include "base/validation.h"
#include "engine/model/model.h"
#include "engine/runner.h"

namespace inferkit {

struct PyModel {
  std::shared_ptr<Runner> runner;
  std::shared_ptr<Model> native;            // the same object, where the runner is a compiled model; else null
  std::vector<InputChecks> asked;           // for each input
  std::vector<InputChecks> asked_defaults;  // and for each that the file has a default for
  std::vector<PortChecks> checks;           // what that comes to, for each input
};

/// With the default checks.
PyModel make_py_model(std::shared_ptr<Runner> runner, std::shared_ptr<Model> native);
/// Checks for each input.
void set_checks(PyModel& model, std::vector<InputChecks> asked, std::vector<InputChecks> asked_defaults);

/// The Python class; set once, at import.
PyTypeObject* model_type();
void set_model_type(PyTypeObject* type);

/// The PyModel of a Python object that is one; throws TypeError otherwise. Needs the GIL.
PyModel& py_model(pybind11::handle object);

}  // namespace inferkit
