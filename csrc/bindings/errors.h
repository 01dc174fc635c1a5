// From C++ errors to the classes of inferkit._errors.
#pragma once
#include <pybind11/pybind11.h>

#include "base/error.h"

namespace inferkit {

/// Registers the translators of Error, std::system_error and std::invalid_argument, and the table of error codes.
void bind_errors(pybind11::module_& m);
/// A new exception object for `status`, its cause attached.
pybind11::object make_exception(const Status& status);
/// Sets Python's error indicator. For functions that speak the C API.
void set_exception(const Status& status);

}  // namespace inferkit
