#include "platform/rehearsal.h"

#include <algorithm>
#include <atomic>

#include "platform/run_control.h"

namespace inferkit {
namespace {

thread_local Rehearsal* rehearsal = nullptr;

}  // namespace

Rehearsal::Rehearsal(int threads, const Clock& clock)
    : threads_(std::max(1, threads)), clock_(clock), free_at_(static_cast<size_t>(threads_)) {
  rehearsal = this;
}

Rehearsal::~Rehearsal() { rehearsal = nullptr; }

Rehearsal* Rehearsal::current() { return rehearsal; }

void Rehearsal::run(int64_t count, int64_t threads, const FunctionRef<void(int64_t, int64_t)>& body) {
  if (inside_ || threads <= 1) return for_parts(count, [&](int64_t i) { body(i, 0); });
  const auto used = free_at_.begin() + static_cast<std::ptrdiff_t>(threads);
  std::fill(free_at_.begin(), used, 0);
  inside_ = true;
  for_parts(count, [&](int64_t i) {
    const Nanos started = clock_.now();
    body(i, 0);
    const Nanos took = clock_.now() - started;
    alone_ += took;
    *std::min_element(free_at_.begin(), used) += took;
  });
  inside_ = false;
  together_ += *std::max_element(free_at_.begin(), used);
  ++synchronizations_;
}

Nanos synchronization_nanos(ThreadPool& pool) {
  const int threads = pool.usable_size();
  if (threads < 2) return 0;
  constexpr size_t kTimes = 200;
  constexpr Nanos kMost = 1'000'000;  // where others have the pool, or the processors, not all threads come
  const Clock& clock = SteadyClock::instance();
  const ThreadPool::Stretch stretch(&pool);
  Nanos least = kMost;  // not the median: where others use the processors, that is how long a thread waits for one
  for (size_t i = 0; i < kTimes; ++i) {
    RunControl::check();
    std::atomic<int> arrived{0};
    const Nanos started = clock.now();
    // Each stays until all have come, or one thread would do it all before the others begin.
    pool.parallel_for(threads, threads, [&](int64_t) {
      arrived.fetch_add(1, std::memory_order_relaxed);
      while (arrived.load(std::memory_order_relaxed) < threads && clock.now() - started < kMost) {
      }
    });
    least = std::min(least, clock.now() - started);
  }
  return least < kMost ? least : 0;
}

}  // namespace inferkit
