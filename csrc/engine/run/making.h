// What one thread makes while others that want the same wait for it, and nobody else does.
#pragma once
#include <atomic>
#include <cstdint>

#include "platform/futex.h"
#include "platform/run_control.h"
#include "platform/threads.h"

namespace inferkit {

/// Shared by the maker and who waits for it. Holds no lock, and needs no destruction: a child of fork() that finds one
/// whose maker is gone just drops it.
class Making {
 public:
  /// Whether the calling thread is the maker: a signal handler, within what it makes, must not wait for it.
  bool by_this_thread() const { return maker_ == thread_id(); }
  /// Made, or failed: the others look for themselves.
  void end() {
    ended_.store(1, std::memory_order_release);  // what was made is seen by who saw this
    futex_wake_all(ended_);
  }
  /// Sleeps until then. Throws Stopped where the calling thread's work is to stop.
  void wait() const {
    constexpr Nanos kSlice = 50'000'000;
    while (ended_.load(std::memory_order_acquire) == 0) {
      RunControl::check();
      futex_wait(ended_, 0, SteadyClock::instance().now() + kSlice);
    }
  }

 private:
  const uint32_t maker_ = thread_id();
  std::atomic<uint32_t> ended_{0};
};

}  // namespace inferkit
