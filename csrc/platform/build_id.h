// Which build this code is of.
#pragma once
#include <string>

namespace inferkit {

/// The build id that the linker gave the library or program that holds this code, in hexadecimal: another one for
/// whatever was built of other sources, by another compiler or with other options. Empty where there is none.
const std::string& build_id();

}  // namespace inferkit
