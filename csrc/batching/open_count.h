// What has not come to its end yet, so that a drain knows when all is quiet.
#pragma once
#include <atomic>
#include <utility>

#include "platform/futex.h"

namespace inferkit {

/// Counts requests that have not ended and batches that have been taken and are not over. Thread-safe. Sequentially
/// consistent with the state of its batcher: who adds sees the close, or the close sees what was added; who takes the
/// last away sees the drain, or the drain sees that nothing is left.
class OpenCount {
 public:
  /// One of them.
  class Hold {
   public:
    Hold() = default;
    explicit Hold(OpenCount& count) noexcept : count_(&count) { count.count_.fetch_add(1); }
    Hold(Hold&& other) noexcept : count_(std::exchange(other.count_, nullptr)) {}
    Hold& operator=(Hold&& other) noexcept {
      Hold before(std::move(*this));
      count_ = std::exchange(other.count_, nullptr);
      return *this;
    }
    ~Hold() {
      if (count_ && count_->count_.fetch_sub(1) == 1) count_->fell_to_zero();
    }

   private:
    OpenCount* count_ = nullptr;
  };

  /// From now on somebody may wait().
  void watch() noexcept { watched_.store(true); }
  bool quiet() const noexcept { return count_.load() == 0; }
  /// Sleeps until nothing is left; false where `until` comes first. After watch().
  bool wait(Nanos until) const noexcept {
    for (;;) {
      const uint32_t seen = falls_.load();
      if (quiet()) return true;
      if (futex_wait(falls_, seen, until) == FutexResult::kTimedOut) return quiet();
    }
  }

 private:
  void fell_to_zero() noexcept {
    if (!watched_.load()) return;  // a system call for every lone request, else
    falls_.fetch_add(1);
    futex_wake_all(falls_);
  }

  std::atomic<int64_t> count_{0};
  std::atomic<bool> watched_{false};
  std::atomic<uint32_t> falls_{0};  // to zero, while watched: what wait() sleeps on
};

}  // namespace inferkit
