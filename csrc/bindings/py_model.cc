#include "bindings/py_model.h"

#include <stdexcept>
#include <utility>

#include "base/error.h"
#include "bindings/bound.h"

namespace py = pybind11;

namespace inferkit {
namespace {

PyTypeObject* the_model_type = nullptr;

}  // namespace

PyTypeObject* model_type() { return the_model_type; }
void set_model_type(PyTypeObject* type) { the_model_type = type; }

PyModel make_py_model(std::shared_ptr<Runner> runner, std::shared_ptr<Model> native) {
  std::vector<InputChecks> asked(runner->inputs().size());
  std::vector<InputChecks> asked_defaults(native ? native->defaults().size() : 0);
  PyModel out{std::move(runner), std::move(native), {}, {}, {}};
  set_checks(out, std::move(asked), std::move(asked_defaults));
  return out;
}

void set_checks(PyModel& model, std::vector<InputChecks> asked, std::vector<InputChecks> asked_defaults) {
  const auto inputs = model.runner->inputs();
  if (asked.size() != inputs.size() || asked_defaults.size() != (model.native ? model.native->defaults().size() : 0))
    throw std::invalid_argument("expected checks for each input");
  const auto senses = model.runner->senses();
  std::vector<PortChecks> checks;
  for (size_t i = 0; i < asked.size(); ++i) {
    checks.push_back(resolve(asked[i], i < senses.size() ? senses[i] : InputSense{}));
  }
  model.asked = std::move(asked);
  model.asked_defaults = std::move(asked_defaults);
  model.checks = std::move(checks);
}

PyModel& py_model(py::handle object) {
  if (!PyObject_TypeCheck(object.ptr(), the_model_type)) {
    throw py::type_error(cat("expected an inferkit.Model, got ", Py_TYPE(object.ptr())->tp_name));
  }
  return bound<PyModel>(object.ptr());
}

}  // namespace inferkit
