#include <thread>

#include "platform/futex.h"
#include "test.h"

using namespace inferkit;

TEST(futex_does_not_sleep_on_a_changed_word) {
  std::atomic<uint32_t> word{1};
  CHECK(futex_wait(word, 0) == FutexResult::kWoken);
}

TEST(futex_times_out_at_an_absolute_time) {
  std::atomic<uint32_t> word{0};
  const Nanos until = SteadyClock::instance().now() + 3'000'000;
  FutexResult result;
  while ((result = futex_wait(word, 0, until)) != FutexResult::kTimedOut) CHECK(result == FutexResult::kInterrupted);
  CHECK(SteadyClock::instance().now() >= until);
  CHECK(futex_wait(word, 0, 1) == FutexResult::kTimedOut);
  CHECK(futex_wait(word, 0, -1) == FutexResult::kTimedOut);
}

TEST(futex_wakes_all_sleepers) {
  std::atomic<uint32_t> word{0};
  auto sleep = [&] {
    while (word.load(std::memory_order_acquire) == 0) futex_wait(word, 0);
  };
  std::thread a(sleep), b(sleep);
  word.store(1, std::memory_order_release);
  futex_wake_all(word);
  a.join();
  b.join();
}
