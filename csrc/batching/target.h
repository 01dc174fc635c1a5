// The rows and the delay with which 99% of the answers come within a given time.
#pragma once
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>

#include "batching/cut.h"

namespace inferkit {

/// How many rows come in a second, lately: a mean that forgets, with a time constant of a second. Not thread-safe.
class ArrivalRate {
 public:
  void came(Nanos now, int64_t rows) noexcept {
    if (since_ == 0) since_ = last_ = now;
    mean_ = mean_ * faded(now) + double(rows);
    last_ = std::max(last_, now);
  }
  double per_second(Nanos now) const noexcept {
    const double seen = -std::expm1(-double(now - since_) / kMemory);  // less than 1 while it is young
    return since_ == 0 || now <= since_ ? 0 : mean_ * faded(now) / (kMemory * 1e-9) / seen;
  }

 private:
  static constexpr double kMemory = 1e9;
  double faded(Nanos now) const { return std::exp(-std::max(0.0, double(now - last_)) / kMemory); }

  double mean_ = 0;
  Nanos since_ = 0, last_ = 0;
};

/// Whether answers come in time: what corrects a plan that rests on too rosy a forecast. Thread-safe; relaxed, figures.
class TargetWatch {
 public:
  explicit TargetWatch(Nanos target) : target_(target) {}

  void answered(Nanos took) noexcept {
    if (target_ <= 0) return;
    if (took > target_) late_.fetch_add(1, std::memory_order_relaxed);
    answers_.fetch_add(1, std::memory_order_relaxed);
  }
  /// What part of the target a plan may use: it falls fast where more than one of a hundred is late, and comes back
  /// slowly, so that it does not swing. One thread at a time.
  double trust() noexcept;

 private:
  const Nanos target_;
  std::atomic<uint64_t> answers_{0}, late_{0};
  uint64_t answers_before_ = 0, late_before_ = 0;
  double trust_ = 1;
};

struct TargetPlan {
  int64_t rows = 0;    // of a batch, at most; 0 while nothing is known of runs
  Nanos delay = 0;     // for which the oldest waits for others
  Nanos expected = 0;  // what 99% should take at most
  bool kept = true;    // nothing that could be chosen would keep the target, where this is false
};

/// A pure function. `target`: of that, what may be used; `rate`: rows in a second; `most`: that a batch may have;
/// `longest`: that a delay may be. A request waits for a run to be over, and for its own: of so many rows that both
/// fit, but of so few only as still keep up with what comes, since a queue that grows keeps no target. The time that is
/// left is used to wait for others where that saves at least a tenth of the work of a row, and they come in that time.
TargetPlan plan_for(Nanos target, double rate, int workers, int64_t most, Nanos longest, RunCost cost);

}  // namespace inferkit
