// batcher(x) and batcher.submit(x). What runs once per request speaks the C API: pybind11's argument handling would
// cost as much as a small model.
#pragma once
#include <pybind11/pybind11.h>

namespace inferkit {

/// Gives the class both methods.
void add_batcher_calls(pybind11::handle batcher_class);
/// Gives a class that derives from it, and overrides neither, the slot of calls.
void install_batcher_call(const pybind11::type& of);

}  // namespace inferkit
