#include "bindings/py_model.h"

#include "base/error.h"
#include "bindings/bound.h"

namespace py = pybind11;

namespace inferkit {
namespace {

PyTypeObject* the_model_type = nullptr;

}  // namespace

PyTypeObject* model_type() { return the_model_type; }
void set_model_type(PyTypeObject* type) { the_model_type = type; }

PyModel& py_model(py::handle object) {
  if (!PyObject_TypeCheck(object.ptr(), the_model_type)) {
    throw py::type_error(cat("expected an inferkit.Model, got ", Py_TYPE(object.ptr())->tp_name));
  }
  return bound<PyModel>(object.ptr());
}

}  // namespace inferkit
