// A count that many threads raise and somebody reads now and then.
#pragma once
#include <atomic>
#include <cstdint>

namespace inferkit {

/// Lock-free. On a cache line of its own, so that two counters raised by two threads do not slow each other down.
/// Relaxed: a count orders nothing.
class alignas(64) Counter {
 public:
  void add(uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

}  // namespace inferkit
