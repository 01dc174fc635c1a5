// From a Python object of a bound class to the C++ object in it, if __init__ has made one: X.__new__(X) makes none, nor
// does a subclass whose own __init__ raises first, and both can be used, by a __del__ for example.
#pragma once
#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include <cstring>
#include <string_view>

#include "base/error.h"
#include "bindings/guarded.h"

namespace inferkit {

/// The name of a class without its module's.
inline const char* short_name(const PyTypeObject* type) {
  const char* dot = std::strrchr(type->tp_name, '.');
  return dot ? dot + 1 : type->tp_name;
}

/// The Python name of a bound class.
template <class T>
const char* class_name() {
  return short_name(pybind11::detail::get_type_info(typeid(T))->type);
}

template <class T>
[[noreturn]] void not_initialised() {
  throw pybind11::type_error(cat("this ", class_name<T>(), " is not initialised: ", class_name<T>(),
                                 ".__init__() was not called, or it raised an error"));
}

/// Null where there is none. `self` must be of the class of T or of one that derives from it.
template <class T>
T* bound_or_null(PyObject* self) {
  auto* instance = reinterpret_cast<pybind11::detail::instance*>(self);
  // A class that derives from several of ours has one place for each of them.
  const auto place = instance->simple_layout
                         ? instance->get_value_and_holder()
                         : instance->get_value_and_holder(pybind11::detail::get_type_info(typeid(T)));
  return place.holder_constructed() ? static_cast<T*>(place.value_ptr()) : nullptr;
}

/// The same; throws TypeError where there is none.
template <class T>
T& bound(PyObject* self) {
  T* made = bound_or_null<T>(self);
  if (!made) not_initialised<T>();
  return *made;
}

/// What __reduce__ gives: a function of this module, by its name, and what it makes a copy of.
template <class... Args>
pybind11::typing::Tuple<pybind11::object, pybind11::object> reduced(const char* function, const Args&... args) {
  const auto maker = pybind11::module_::import("inferkit._core").attr(function);
  return pybind11::make_tuple(maker, pybind11::make_tuple(args...));
}

/// Makes pybind11's own functions throw that, too, where they would hand out fresh, unset memory: what they allocate it
/// with is called for nothing else.
template <class T>
void require_init() {
  pybind11::detail::get_type_info(typeid(T))->operator_new = [](size_t) -> void* { not_initialised<T>(); };
}

/// What pybind11 makes an object with on its way from C++ to Python, and whose answer it does not look at.
inline PyObject* allocate_or_throw(PyTypeObject* type, Py_ssize_t items) {
  PyObject* self = PyType_GenericAlloc(type, items);
  if (!self) throw pybind11::error_already_set();
  return self;
}

/// Finds what classes of ours `type` derives from, which is noted the first time that one is asked for.
inline void note_bases(PyTypeObject* type) {
  try {
    pybind11::detail::all_type_info(type);
  } catch (...) {  // half noted: nothing would forget it at the end of the type
    pybind11::detail::get_internals().registered_types_py.erase(type);
    throw;
  }
}

/// The same on the way from Python, for our classes and those that derive from them.
inline PyObject* new_instance(PyTypeObject* type, PyObject*, PyObject*) noexcept {
  return guarded([&] {
    note_bases(type);  // before there is an object: the collector would look into it before it is laid out
    PyObject* self = allocate_or_throw(type, 0);
    try {
      reinterpret_cast<pybind11::detail::instance*>(self)->allocate_layout();
    } catch (...) {  // its own end would look for what was not laid out
      if (PyType_IS_GC(type)) PyObject_GC_UnTrack(self);
      type->tp_free(self);
      Py_DECREF(reinterpret_cast<PyObject*>(type));
      throw;
    }
    return self;
  });
}

/// The setup that every class has: an object of it can be asked for where there is no memory for one.
inline void with_new(PyHeapTypeObject* type) {
  type->ht_type.tp_alloc = allocate_or_throw;
  type->ht_type.tp_new = new_instance;
}

/// Says what makes objects of a class that Python code cannot make any of.
inline PyObject* refuse_new(PyTypeObject* type, PyObject*, PyObject*) noexcept {
  struct Maker {
    std::string_view type;
    const char* how;
  };
  static constexpr Maker kMakers[] = {{"Buffer", "BufferPool.acquire(nbytes) makes one"},
                                      {"Weights", "Weights.open(path) makes one"},
                                      {"Ticket", "Batcher.submit(x) makes one"},
                                      {"Timing", "Ticket.timing is one"},
                                      {"PoolStats", "BufferPool.stats() makes one"},
                                      {"LeakRow", "BufferPool.leaks() makes them"},
                                      {"DeviceArray", "a model on CUDA that is called with arrays there makes them"}};
  for (const PyTypeObject* base = type; base; base = base->tp_base) {
    for (const Maker& maker : kMakers) {
      if (maker.type != short_name(base)) continue;
      return PyErr_Format(PyExc_TypeError, "cannot create '%s' instances: %s", short_name(type), maker.how);
    }
  }
  return PyErr_Format(PyExc_TypeError, "cannot create '%s' instances", short_name(type));
}

/// For classes that Python code cannot make objects of: not by their __new__ either. Users see them.
inline void made_elsewhere(PyHeapTypeObject* type) {
  type->ht_type.tp_alloc = allocate_or_throw;
  type->ht_type.tp_new = refuse_new;
}

/// The same for a class that nobody sees.
inline void without_new(PyHeapTypeObject* type) {
  type->ht_type.tp_alloc = allocate_or_throw;
  type->ht_type.tp_new = nullptr;
  type->ht_type.tp_flags |= Py_TPFLAGS_DISALLOW_INSTANTIATION;
}

}  // namespace inferkit
