// Scratch of products whose B is packed in the run.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace inferkit {

/// How many of `products` may be packed at once, by as many of the run's `threads`, into `bytes` each: one where they
/// are too little work, or that is too much memory, for what it brings. `nanos` is the work of all.
inline int pack_slots(int threads, int64_t products, double nanos, size_t bytes) {
  constexpr double kWorthThreads = 20'000;
  constexpr size_t kMostBytes = size_t{32} << 20;
  const int slots = std::clamp(threads, 1, 64);
  const bool worth = products > 1 && nanos > kWorthThreads && bytes <= kMostBytes / static_cast<size_t>(slots);
  return worth ? slots : 1;
}

}  // namespace inferkit
