// Dicts with names for keys, out of C++ values.
#pragma once
#include <pybind11/pybind11.h>

#include <utility>

namespace inferkit {

struct Key {
  const char* name;

  template <class T>
  struct With {
    const char* name;
    T value;
  };
  template <class T>
  With<T> operator=(T&& value) const {  // NOLINT(misc-unconventional-assign-operator)
    return {name, std::forward<T>(value)};
  }
};

inline Key operator""_key(const char* name, size_t) { return {name}; }

/// dict_of("rows"_key = 4, ...). As pybind11's dict("rows"_a = 4, ...), which forgets what Python said where it had no
/// memory for a value.
template <class... T>
pybind11::dict dict_of(const Key::With<T>&... items) {
  pybind11::dict out;
  const auto put = [&](const char* name, const auto& value) {
    const pybind11::object object = pybind11::detail::object_or_cast(value);
    if (!object || PyDict_SetItemString(out.ptr(), name, object.ptr()) != 0) throw pybind11::error_already_set();
  };
  (put(items.name, items.value), ...);
  return out;
}

}  // namespace inferkit
