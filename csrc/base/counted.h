// Numbers of things, for messages.
#pragma once
#include <concepts>
#include <string>
#include <string_view>

#include "base/cat.h"

namespace inferkit {

/// "1 row", "2 rows": `several` is for a plural that is not `one` and an s.
template <std::integral Count>
std::string counted(Count count, std::string_view one, std::string_view several = {}) {
  if (count == 1) return cat(count, " ", one);
  return several.empty() ? cat(count, " ", one, "s") : cat(count, " ", several);
}

}  // namespace inferkit
