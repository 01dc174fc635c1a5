// The extension module. Each class has a bind_<class>.cc of its own.
#include <pybind11/pybind11.h>

#include "bindings/signature.h"

namespace inferkit {
void bind_errors(pybind11::module_& m);
void bind_build_info(pybind11::module_& m);
void bind_cuda(pybind11::module_& m);
void bind_buffer_pool(pybind11::module_& m);
void bind_weights(pybind11::module_& m);
void bind_model(pybind11::module_& m);
void bind_inspect(pybind11::module_& m);
void bind_explain(pybind11::module_& m);
void bind_batcher(pybind11::module_& m);
void bind_simulation(pybind11::module_& m);
void bind_step_trace(pybind11::module_& m);

namespace {

/// One interpreter has the objects that the module keeps, and the GIL that its threads take. A second one that imported
/// it would wait for ever. False with an ImportError set, in the words that Python has for it from 3.13 on, where it
/// refuses before it comes to this; the package says what to do.
bool in_main_interpreter() {
  if (PyInterpreterState_Get() == PyInterpreterState_Main()) return true;
  PyErr_SetString(PyExc_ImportError, "inferkit._core does not support loading in subinterpreters");
  return false;
}

}  // namespace
}  // namespace inferkit

// pybind11's function must not even be called elsewhere: what it shares between modules is what hangs.
#define PyInit__core make_core
PYBIND11_MODULE(_core, m) {
  // Python 3.13 calls PyInit__core in the main interpreter, whoever imports.
  if (!inferkit::in_main_interpreter()) throw pybind11::error_already_set();
  m.doc() = "The native core of inferkit. Its public face is the package inferkit.";
  inferkit::bind_errors(m);
  inferkit::bind_build_info(m);
  inferkit::bind_buffer_pool(m);
  inferkit::bind_cuda(m);
  inferkit::bind_weights(m);
  inferkit::bind_model(m);
  inferkit::bind_inspect(m);
  inferkit::bind_explain(m);
  inferkit::bind_batcher(m);
  inferkit::bind_simulation(m);
  inferkit::bind_step_trace(m);
  m.def(
      "_make_docs_plain",
      [] {
        auto module = pybind11::module_::import("inferkit._core");
        inferkit::make_docs_plain(module);
      },
      "Take the types of C++ out of the docstrings, for help(). The package calls it, and .ci/stubs, which reads them, "
      "does not.");
}
#undef PyInit__core

extern "C" PYBIND11_EXPORT PyObject* PyInit__core() { return inferkit::in_main_interpreter() ? make_core() : nullptr; }
