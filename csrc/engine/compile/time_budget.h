// What work that can be left undone may take: folding, and trying a model out.
#pragma once
#include <algorithm>
#include <cstdint>

#include "platform/run_control.h"

namespace inferkit {

/// Two accounts: the estimates, which give the same decisions on every machine, and the clock, for where they are
/// wrong.
class TimeBudget {
 public:
  explicit TimeBudget(int64_t nanos) : TimeBudget(nanos, 2 * nanos) {}
  TimeBudget(int64_t estimated, Nanos real) : estimated_(estimated), real_(real) {}

  /// Whether work of this estimate is still within; if so it counts.
  bool take(int64_t estimate) {
    if (estimate > estimated_) return false;
    estimated_ -= estimate;
    return true;
  }
  /// Calls work(), which is stopped when the time is over: then false. Throws Stopped where it was to stop anyway.
  template <class Work>
  bool spend(Work&& work) {
    const Nanos start = SteadyClock::instance().now();
    struct Count {
      ~Count() { left = std::max<Nanos>(0, left - (SteadyClock::instance().now() - start)); }
      Nanos& left;
      const Nanos start;
    } count{real_, start};
    Deadline deadline(start + real_);
    try {
      const RunControl::Scope scope(&deadline);
      work();
      return true;
    } catch (const Stopped&) {
      if (!deadline.passed()) throw;
      return false;
    }
  }

 private:
  int64_t estimated_;
  Nanos real_;
};

}  // namespace inferkit
