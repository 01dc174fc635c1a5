#include "platform/clock.h"

#include <ctime>

#include "base/immortal.h"

namespace inferkit {

Nanos SteadyClock::now() const {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return Nanos{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

const SteadyClock& SteadyClock::instance() {
  static const SteadyClock& clock = immortal(SteadyClock());
  return clock;
}

}  // namespace inferkit
