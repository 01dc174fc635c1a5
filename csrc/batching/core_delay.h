// What a batch waits for a core that other models have, as learnt from those before it: a pure class, without a lock
// and without a clock.
#pragma once
#include <algorithm>

#include "platform/clock.h"

namespace inferkit {

struct CoreWait {
  Nanos typical = 0;
  Nanos likely = 0;  // hardly ever more
};

/// A moving mean and a moving mean deviation, as TCP keeps them of its round trips (Jacobson, "Congestion Avoidance and
/// Control", 1988, appendix A).
class CoreDelay {
 public:
  /// A batch got its cores at `now`, and had waited for others so long; 0 where it had not.
  void learn(Nanos wait, Nanos now) noexcept {
    if (wait > 0) last_ = now;
    const auto sample = double(wait);
    if (!known_) {
      known_ = wait > 0;
      mean_ = sample;
      deviation_ = sample / 2;
      return;
    }
    const double error = sample - mean_;
    mean_ += error / 8;
    deviation_ += (std::max(error, -error) - deviation_) / 4;
  }

  /// For a batch that comes now. Who waits already has so `waiting`, and others have cores, or wait for some, if
  /// `others`. Where nobody has, and nobody had to be waited for lately, there is nothing to wait for.
  CoreWait expected(Nanos waiting, bool others, Nanos now) const noexcept {
    constexpr Nanos kLately = 50'000'000;
    if (!others && now - last_ > kLately + static_cast<Nanos>(4 * mean_)) return {};
    const double typical = std::max(mean_, double(waiting));
    return {static_cast<Nanos>(typical), static_cast<Nanos>(std::max(mean_ + 2 * deviation_, typical))};
  }

 private:
  double mean_ = 0, deviation_ = 0;  // nanoseconds
  bool known_ = false;
  Nanos last_ = 0;  // when somebody had waited
};

}  // namespace inferkit
