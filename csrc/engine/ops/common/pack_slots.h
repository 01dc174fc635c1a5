// Scratch of products whose B is packed in the run.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "platform/threads.h"

namespace inferkit {

/// How many of `products` may be packed at once, by as many threads, into `bytes` each: one where they are too little
/// work, or that is too much memory, for what it brings. `nanos` is the work of all.
inline int pack_slots(int64_t products, double nanos, size_t bytes) {
  constexpr double kWorthThreads = 20'000;
  constexpr size_t kMostBytes = size_t{32} << 20;
  const int slots = std::clamp(usable_cpus(), 1, 64);
  const bool worth = products > 1 && nanos > kWorthThreads && bytes <= kMostBytes / static_cast<size_t>(slots);
  return worth ? slots : 1;
}

}  // namespace inferkit
