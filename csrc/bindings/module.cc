// The extension module. Each class has a bind_<class>.cc of its own.
#include <pybind11/pybind11.h>

namespace inferkit {
void bind_errors(pybind11::module_& m);
void bind_build_info(pybind11::module_& m);
void bind_buffer_pool(pybind11::module_& m);
void bind_weights(pybind11::module_& m);
void bind_model(pybind11::module_& m);
void bind_inspect(pybind11::module_& m);
void bind_batcher(pybind11::module_& m);
void bind_step_trace(pybind11::module_& m);
}  // namespace inferkit

PYBIND11_MODULE(_core, m) {
  m.doc() = "The native core of inferkit. Its public face is the package inferkit.";
  inferkit::bind_errors(m);
  inferkit::bind_build_info(m);
  inferkit::bind_buffer_pool(m);
  inferkit::bind_weights(m);
  inferkit::bind_model(m);
  inferkit::bind_inspect(m);
  inferkit::bind_batcher(m);
  inferkit::bind_step_trace(m);
}
