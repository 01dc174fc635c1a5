// Where each intermediate of a plan lies in the one arena that the plan runs in. A pure function of sizes and
// lifetimes.
#pragma once
#include <cstddef>
#include <span>
#include <vector>

namespace inferkit {

inline constexpr size_t kPlanAlignment = 64;

/// A block that must exist from step `first` to step `last`, both included (first <= last).
struct Interval {
  size_t bytes = 0;
  int first = 0;
  int last = 0;
};

struct MemoryPlan {
  std::vector<size_t> offsets;  // of each interval, multiples of kPlanAlignment
  size_t total = 0;             // bytes of the arena, a multiple of kPlanAlignment
};

/// Intervals whose steps meet never share a byte; a block of 0 bytes lies at offset 0. Best fit, in the better of two
/// orders (by size, by birth), O(n^2) with a small constant, up to a few thousand intervals; by birth alone, O(n log
/// n), beyond. Deterministic. Throws std::invalid_argument where an interval ends before it starts, Error(kModel) where
/// the total passes size_t.
MemoryPlan plan_memory(std::span<const Interval> intervals);

/// The most bytes (each block rounded up to the alignment) that are live at one step: no plan can be smaller.
size_t max_live_bytes(std::span<const Interval> intervals);

}  // namespace inferkit
