// Signatures as Python writes them, of those that pybind11 puts in front of docstrings and into its TypeErrors: names
// and defaults, without the types that C++ has for them.
#pragma once
#include <pybind11/pybind11.h>

#include <optional>
#include <string>
#include <string_view>

namespace inferkit {

struct Signature {
  std::string parameters;  // "(self, size=0)"
  size_t length = 0;       // of what it was read from
};

/// Of text that begins with "(self: inferkit._core.Buffer, size: int = 0) -> int"; nullopt where it does not. `self`:
/// whether it stays.
std::optional<Signature> read_signature(std::string_view text, bool self = true);

/// What help() and inspect.signature() take for a function's signature and docstring, of those that pybind11 wrote, or
/// that we wrote as it does; nullopt where they are not.
std::optional<std::string> plain_doc(std::string_view name, std::string_view doc);

/// What to say in place of pybind11's TypeError of a function that does not take its arguments: its plain signature.
/// nullopt for any other message.
std::optional<std::string> plain_refusal(std::string_view message);

/// Rewrites the docstrings of a module's functions and of its classes' methods and properties.
void make_docs_plain(pybind11::module_& module);

}  // namespace inferkit
