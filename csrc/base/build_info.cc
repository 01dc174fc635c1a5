#include "base/build_info.h"

#ifndef INFERKIT_VERSION
#define INFERKIT_VERSION ""
#endif

namespace inferkit {

const BuildInfo& build_info() {
#if defined(NDEBUG) && defined(__OPTIMIZE__)
  constexpr bool debug = false;
#else
  constexpr bool debug = true;
#endif
  static const BuildInfo info = {INFERKIT_VERSION,
                                 INFERKIT_BUILD_TYPE,
#if defined(__clang__)
                                 "clang " __clang_version__,
#else
                                 "gcc " __VERSION__,
#endif
                                 INFERKIT_FLAGS,
                                 INFERKIT_SANITIZERS,
                                 debug};
  return info;
}

}  // namespace inferkit
