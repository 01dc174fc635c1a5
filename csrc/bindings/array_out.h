// Fresh numpy arrays for results.
#pragma once
#include <pybind11/pybind11.h>

#include "base/dtype.h"
#include "base/shape.h"

namespace inferkit {

/// An uninitialised row-major array of its own memory; `*data` is where to write it. bfloat16 and the types of
/// base/small_types.h come as ml_dtypes' where that package is installed, else as their bits in uint16 or uint8. Needs
/// the GIL.
pybind11::object new_array(DType dtype, const Shape& shape, void** data);

/// numpy's dtype object.
pybind11::object numpy_dtype(DType dtype);

}  // namespace inferkit
