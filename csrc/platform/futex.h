// Sleeping on a 32-bit word until another thread of the process changes it.
#pragma once
#include <atomic>
#include <cstdint>

#include "platform/clock.h"

namespace inferkit {

enum class FutexResult : uint8_t {
  kWoken,        // woken, or the word was not `expected`; may be spurious: look at the word again
  kTimedOut,     // the deadline passed
  kInterrupted,  // a signal handler ran on this thread
};

/// Sleeps while `word` is `expected`, until futex_wake, a signal or `deadline` (CLOCK_MONOTONIC, as SteadyClock;
/// kNever for none). The comparison and the falling asleep are one step: a change followed by futex_wake is never
/// missed.
FutexResult futex_wait(const std::atomic<uint32_t>& word, uint32_t expected, Nanos deadline = kNever);

/// Wakes at most `count` sleepers. Change the word first.
void futex_wake(const std::atomic<uint32_t>& word, int count);
void futex_wake_all(const std::atomic<uint32_t>& word);

}  // namespace inferkit
