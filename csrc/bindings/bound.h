// From a Python object of a bound class to the C++ object in it, if __init__ has made one: X.__new__(X) makes none, nor
// does a subclass whose own __init__ raises first, and both can be used, by a __del__ for example.
#pragma once
#include <pybind11/pybind11.h>

#include <cstring>

#include "base/error.h"

namespace inferkit {

/// The Python name of a bound class.
template <class T>
const char* class_name() {
  const char* name = pybind11::detail::get_type_info(typeid(T))->type->tp_name;
  const char* dot = std::strrchr(name, '.');
  return dot ? dot + 1 : name;
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
  // The garbage collector may come between the allocation of an object, zeroed, and its layout: the first object of a
  // subclass has pybind11 look for its bases in between.
  if (!instance->simple_layout && !instance->nonsimple.values_and_holders) return nullptr;
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

/// Makes pybind11's own functions throw that, too, where they would hand out fresh, unset memory: what they allocate it
/// with is called for nothing else.
template <class T>
void require_init() {
  pybind11::detail::get_type_info(typeid(T))->operator_new = [](size_t) -> void* { not_initialised<T>(); };
}

/// For classes that Python code cannot make objects of: not by their __new__ either.
inline void without_new(PyHeapTypeObject* type) {
  type->ht_type.tp_new = nullptr;
  type->ht_type.tp_flags |= Py_TPFLAGS_DISALLOW_INSTANTIATION;
}

}  // namespace inferkit
