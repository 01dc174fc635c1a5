// Python's own numbers, and lists of them, as arrays of the type that a model's input has.
#pragma once
#include <pybind11/pybind11.h>

#include <string_view>

#include "base/dtype.h"

namespace inferkit {

/// Whether it is a number of Python's, or a list or tuple.
bool is_number_or_list(pybind11::handle object);

/// The array that numpy makes of a number, or of nested lists and tuples of numbers or arrays. Python's numbers become
/// `dtype` where that is clear: ints that it can hold, floats where it is a floating-point type, bools where it is
/// bool. Arrays have a type of their own, which is kept. May run any Python. Throws Error(kValidation, kDtype or
/// kShape) that names the input where no such array can be made.
pybind11::object array_of_numbers(pybind11::handle object, std::string_view name, DType dtype);

}  // namespace inferkit
