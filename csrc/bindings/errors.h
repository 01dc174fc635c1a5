// From C++ errors to the classes of inferkit._errors.
#pragma once
#include <pybind11/pybind11.h>

#include "base/error.h"
#include "batching/refusal.h"

namespace inferkit {

/// Registers the translators of Error, std::system_error and std::invalid_argument, and the table of error codes.
void bind_errors(pybind11::module_& m);
/// Whether what a callable raised is KeyboardInterrupt or SystemExit, which nobody is to miss. With the GIL.
bool asks_to_stop(const Status& status);
/// A new exception object for `status`, its cause attached; KeyboardInterrupt and SystemExit are their own exception.
/// `retry_after` as in Refusal.
pybind11::object make_exception(const Status& status, Nanos retry_after = kNever);
/// Sets Python's error indicator. For functions that speak the C API.
void set_exception(const Status& status, Nanos retry_after = kNever) noexcept;
/// str() and repr() of any object for a message, as UTF-8 whatever characters it has; what raises an Exception (as
/// opposed to a KeyboardInterrupt, which goes through) cannot be printed, and the text says so.
std::string str_of(pybind11::handle object);
std::string repr_of(pybind11::handle object);
/// "ValueError: what it says", for messages. (error.what() adds the traceback, and does not survive a full stack.)
std::string describe(const pybind11::error_already_set& error);
/// The exception object, its traceback attached, to be some status's cause.
pybind11::object exception_of(const pybind11::error_already_set& error);

}  // namespace inferkit
