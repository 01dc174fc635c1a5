// Time as an interface, so that what depends on time is tested without sleeping.
#pragma once
#include <atomic>
#include <cstdint>

namespace inferkit {

/// Nanoseconds on a monotonic clock. Seconds as doubles appear only at the Python border.
using Nanos = int64_t;
inline constexpr Nanos kNever = INT64_MAX;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Nanos now() const = 0;
};

/// CLOCK_MONOTONIC, the clock of Python's time.monotonic().
class SteadyClock final : public Clock {
 public:
  Nanos now() const override;
  static const SteadyClock& instance();
};

/// Stands still until it is told to move. Thread-safe.
class ManualClock final : public Clock {
 public:
  explicit ManualClock(Nanos start = 0) : now_(start) {}
  Nanos now() const override { return now_.load(std::memory_order_acquire); }
  void advance(Nanos by) { now_.fetch_add(by, std::memory_order_acq_rel); }

 private:
  std::atomic<Nanos> now_;
};

}  // namespace inferkit
