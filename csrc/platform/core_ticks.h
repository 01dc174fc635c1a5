// The cheapest clock there is, for who asks often whether it is time to look at a real one.
#pragma once
#include <cstdint>

#include "platform/clock.h"

namespace inferkit {

/// What the core counts: x86's time-stamp counter and ARM's virtual counter go on at a rate between some tens of
/// millions and some billions a second. Two cores need not agree, so a difference may be anything: unsigned, one that
/// goes backwards is huge.
inline uint64_t core_ticks() {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
  uint64_t ticks;
  asm volatile("mrs %0, cntvct_el0" : "=r"(ticks));
  return ticks;
#else
  return static_cast<uint64_t>(SteadyClock::instance().now());
#endif
}

}  // namespace inferkit
