// Sequences and optionals between Python and models: lists of arrays, and None.
#pragma once
#include <pybind11/pybind11.h>

#include <span>

#include "base/validation.h"
#include "engine/runner.h"
#include "graph/ir.h"

namespace inferkit {

/// What a caller gives for a port that is a sequence (a list or tuple of arrays) or an optional (also None), copied.
/// May run any Python. Throws Error(kValidation) that names the input, and the place in the list.
Tensor list_in(pybind11::handle object, const PortSpec& spec, const PortChecks& checks);

/// A list of fresh arrays; None where there is nothing. Needs the GIL.
pybind11::object list_out(DType dtype, std::span<const TensorView> items, bool none);

}  // namespace inferkit
