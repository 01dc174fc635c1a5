// Static methods that help() shows as functions. Of pybind11's own it says that they are methods of pybind11's records.
#pragma once
#include <pybind11/pybind11.h>

namespace inferkit {

/// One static method, which `Tag` tells from the others. It lives as long as the process.
template <class Tag>
class StaticMethod {
 public:
  static void define(pybind11::handle type, const char* name, const pybind11::cpp_function& function) {
    function_ = function.inc_ref().ptr();
    // Not METH_FASTCALL, by which pybind11's own are told (pybind11_guard.cc).
    def_ = {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(call)), METH_VARARGS | METH_KEYWORDS,
            reinterpret_cast<PyCFunctionObject*>(function_)->m_ml->ml_doc};
    const auto module = pybind11::reinterpret_borrow<pybind11::object>(type.attr("__module__"));
    const auto plain = pybind11::reinterpret_steal<pybind11::object>(PyCFunction_NewEx(&def_, nullptr, module.ptr()));
    if (!plain) throw pybind11::error_already_set();
    const auto method = pybind11::reinterpret_steal<pybind11::object>(PyStaticMethod_New(plain.ptr()));
    if (!method) throw pybind11::error_already_set();
    type.attr(name) = method;
  }

 private:
  static PyObject* call(PyObject*, PyObject* args, PyObject* kwargs) { return PyObject_Call(function_, args, kwargs); }

  static inline PyObject* function_ = nullptr;
  static inline PyMethodDef def_{};
};

}  // namespace inferkit
