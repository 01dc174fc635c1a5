// How much work something is, for tests that bound it: the thread's own CPU time, which a busy machine does not
// lengthen.
#pragma once
#include <cstdlib>
#include <ctime>

namespace inferkit::testing {

/// Seconds of CPU time that the calling thread spends in `f`; below a tool that makes all work so many times longer
/// (valgrind), INFERKIT_TEST_SLOWDOWN says how many.
template <class F>
double cpu_seconds(F&& f) {
  const auto now = [] {
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  };
  const double start = now();
  f();
  const char* slowdown = std::getenv("INFERKIT_TEST_SLOWDOWN");
  return (now() - start) / (slowdown ? std::strtod(slowdown, nullptr) : 1);
}

}  // namespace inferkit::testing
