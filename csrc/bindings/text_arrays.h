// Strings between numpy and models: from str_ and object arrays to UTF-8, and back to object arrays of str.
#pragma once
#include <pybind11/pybind11.h>

#include <string_view>

#include "base/scan.h"
#include "bindings/array_in.h"
#include "engine/runner.h"
#include "memory/buffer_pool.h"

namespace inferkit {

/// The numpy array to read an input, or a callable's output, by: to_array of numbers, and for inputs also
/// array_of_numbers; of strings also an object array made of a str, of a list or tuple of them, or of anything with
/// __array__, as pandas has. May run any Python.
/// Throws as to_array.
pybind11::object to_port_array(pybind11::handle object, const PortSpec& spec, ArrayRole role = ArrayRole::kInput);

/// Where the elements of such an array lie: view_of of numbers; strings are converted to `memory`, views first, then
/// their bytes. Runs no Python unless it throws. Throws as view_of; Error(kValidation, kDtype) that names the first
/// element that is no string, or no text: half of a surrogate pair.
StridedView port_view(pybind11::handle array, const PortSpec& spec, BufferPool& pool, Buffer& memory,
                      ArrayRole role = ArrayRole::kInput);

/// A fresh object array of str. Needs the GIL; runs no Python unless it throws.
pybind11::object text_array(std::span<const std::string_view> views, const Shape& shape);

}  // namespace inferkit
