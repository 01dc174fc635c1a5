// Calls into Python that do not come back, because the interpreter ended meanwhile.
//
// A thread that wants the GIL once the interpreter is being finalized is ended by Python (up to 3.13) with
// pthread_exit(), which unwinds its stack: through our frames, whose destructors would release Python's objects without
// the GIL, and into functions that must not be left by an exception, which aborts the process. So the linker puts the
// functions below in front of Python's own (--wrap, see cmake/Python.cmake): an unwinding that comes out of one of them
// stops there, and the thread sleeps until the process has gone, as it does in Python 3.14.
#include "bindings/python_calls.h"

#include <cxxabi.h>

#include "bindings/exit.h"

// The handler is never left: an unwinding that is swallowed would end the process, too.
#define INFERKIT_STOP_UNWINDING(call) \
  try {                               \
    return call;                      \
  } catch (abi::__forced_unwind&) {   \
    inferkit::hang_thread();          \
  }

#define INFERKIT_PYTHON_CALL(result, name, parameters, arguments) \
  extern "C" result __real_##name parameters;                     \
  extern "C" result __wrap_##name parameters { INFERKIT_STOP_UNWINDING(__real_##name arguments) }
#include "bindings/python_calls.inc"

#if PY_VERSION_HEX < 0x030B0000
#undef PyObject_Vectorcall
#undef PyObject_CallOneArg
extern "C" PyObject* inferkit_Vectorcall(PyObject* callable, PyObject* const* args, size_t count, PyObject* names) {
  INFERKIT_STOP_UNWINDING(PyObject_Vectorcall(callable, args, count, names))
}
extern "C" PyObject* inferkit_CallOneArg(PyObject* callable, PyObject* argument) {
  INFERKIT_STOP_UNWINDING(PyObject_CallOneArg(callable, argument))
}
#endif
