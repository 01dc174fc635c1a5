// What lives as long as the process: threads may be inside a run while exit() destroys what is static.
#pragma once
#include <memory>
#include <utility>

namespace inferkit {

/// A copy that is never destroyed, for a static reference.
template <class T>
T& immortal(T value) {
  return *std::make_unique<T>(std::move(value)).release();
}

}  // namespace inferkit
