// Included before everything else in the bindings: what Python 3.10 has inline becomes a function, which
// python_calls.cc defines, since the linker can only put something in front of functions.
#pragma once
#include <Python.h>

#if PY_VERSION_HEX < 0x030B0000
extern "C" PyObject* inferkit_Vectorcall(PyObject* callable, PyObject* const* args, size_t count, PyObject* names);
extern "C" PyObject* inferkit_CallOneArg(PyObject* callable, PyObject* argument);
#define PyObject_Vectorcall inferkit_Vectorcall
#define PyObject_CallOneArg inferkit_CallOneArg
#endif
