#include "platform/futex.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <ctime>

namespace inferkit {
namespace {
static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t));

const uint32_t* address(const std::atomic<uint32_t>& word) { return reinterpret_cast<const uint32_t*>(&word); }
}  // namespace

FutexResult futex_wait(const std::atomic<uint32_t>& word, uint32_t expected, Nanos deadline) {
  timespec until{};
  if (deadline < 0) deadline = 0;
  if (deadline != kNever) {
    until.tv_sec = static_cast<time_t>(deadline / 1'000'000'000);
    until.tv_nsec = static_cast<long>(deadline % 1'000'000'000);
  }
  // FUTEX_WAIT_BITSET is the one whose timeout is absolute, and on CLOCK_MONOTONIC.
  const long rc = syscall(SYS_futex, address(word), FUTEX_WAIT_BITSET_PRIVATE, expected,
                          deadline == kNever ? nullptr : &until, nullptr, FUTEX_BITSET_MATCH_ANY);
  if (rc == 0 || errno == EAGAIN) return FutexResult::kWoken;
  return errno == ETIMEDOUT ? FutexResult::kTimedOut : FutexResult::kInterrupted;
}

void futex_wake(const std::atomic<uint32_t>& word, int count) {
  syscall(SYS_futex, address(word), FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
}

void futex_wake_all(const std::atomic<uint32_t>& word) { futex_wake(word, INT_MAX); }

}  // namespace inferkit
