// What this binary was built with, as the build wrote it down.
#pragma once
#include <string_view>

namespace inferkit {

struct BuildInfo {
  std::string_view version;
  std::string_view build_type;
  std::string_view compiler;
  std::string_view flags;
  std::string_view sanitizers;  // "" for none
  bool debug;                   // assertions on or not optimised
};
const BuildInfo& build_info();

}  // namespace inferkit
