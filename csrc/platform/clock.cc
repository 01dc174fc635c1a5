#include "platform/clock.h"

#include <ctime>

namespace inferkit {

Nanos SteadyClock::now() const {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return Nanos{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

const SteadyClock& SteadyClock::instance() {
  static const SteadyClock clock;
  return clock;
}

}  // namespace inferkit
