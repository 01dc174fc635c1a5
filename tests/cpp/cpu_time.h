// How much work something is, for tests that bound it: the thread's own CPU time, which a busy machine does not
// lengthen.
#pragma once
#include <cstdlib>
#include <ctime>

namespace inferkit::testing {

/// How many times longer all work takes below a tool (valgrind), as INFERKIT_TEST_SLOWDOWN says; 1 without one.
inline double slowdown() {
  const char* times = std::getenv("INFERKIT_TEST_SLOWDOWN");
  return times ? std::strtod(times, nullptr) : 1;
}

/// Whether work can take as long as is estimated: not below such a tool, nor with a sanitizer.
inline bool runs_at_full_speed() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return false;
#else
  return slowdown() == 1;
#endif
}

/// Seconds of CPU time that the calling thread spends in `f`, without the slowdown.
template <class F>
double cpu_seconds(F&& f) {
  const auto now = [] {
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  };
  const double start = now();
  f();
  return (now() - start) / slowdown();
}

}  // namespace inferkit::testing
