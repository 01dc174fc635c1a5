// Inputs and outputs by name: dicts of Python's, whose keys may be anything.
#pragma once
#include <pybind11/pybind11.h>

#include <span>
#include <string>
#include <string_view>

#include "engine/runner.h"

namespace inferkit {

/// Of any length and content, unlike what the functions that take C strings make of it.
inline pybind11::str name_of(const PortSpec& spec) { return pybind11::str(spec.name); }

/// "'a', 'b'", for messages.
std::string names_of(std::span<const PortSpec> specs);

/// What a dict has under the name; null where there is nothing. A reference of our own: to read an array may run
/// Python, and that may change the dict. Runs Python itself, where a key has a hash or a comparison of its own.
pybind11::object find_named(pybind11::handle dict, const PortSpec& spec);

/// Throws Error(kValidation, kName) where a dict in which `found` names of `specs` were found has any other key. `what`
/// the names are of: "input".
void refuse_other_names(pybind11::handle dict, std::span<const PortSpec> specs, size_t found, std::string_view what);

}  // namespace inferkit
