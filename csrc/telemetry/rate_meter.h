// Events per second over the last seconds.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>

#include "platform/clock.h"

namespace inferkit {

/// Thread-safe and lock-free. One slot a second, in a ring; a slot whose second has passed is taken over by the first
/// event of its new second. Two threads that do so at once may lose an event or two: a rate, not a count.
class RateMeter {
 public:
  static constexpr int kWindow = 10;  // seconds

  explicit RateMeter(Nanos start) : start_(start) {}
  void add(Nanos now, uint64_t n = 1);
  /// Over the last kWindow seconds, or since the start where that is less.
  double per_second(Nanos now) const;

 private:
  static constexpr int64_t kSlots = 16;
  static constexpr Nanos kSecond = 1'000'000'000;
  struct Slot {
    std::atomic<int64_t> second{-1};
    std::atomic<uint64_t> count{0};
  };

  const Nanos start_;
  std::array<Slot, kSlots> slots_;
};

}  // namespace inferkit
