// For loops that watch memory.
#pragma once

namespace inferkit {

/// Gives what the core has to its other thread for some tens of nanoseconds.
inline void pause_core() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace inferkit
