// Who runs next, and where: the queue, the places in it, the slots for running batches and the workers that sleep.
#pragma once
#include <atomic>
#include <vector>

#include "batching/policy.h"
#include "batching/queue.h"
#include "platform/clock.h"
#include "platform/mutex.h"
#include "platform/thread_pool.h"

namespace inferkit {

struct SchedulerOptions {
  PolicyOptions policy;
  size_t max_queue_size = 0;  // requests that may wait; 0: any number
  int max_concurrent = 1;     // batches that may run at once
};

/// Requests of one layout on their way through a run; reused by its owner, so that it stops allocating.
struct Batch {
  std::vector<RequestRef> requests;
  LayoutRef layout;
  int64_t rows = 0;
  DispatchReason reason = DispatchReason::kReady;
};

struct QueueFigures {
  size_t depth = 0;  // requests that have a place, or wait for one
  int running = 0;   // batches
  Nanos oldest_wait = 0;
};

/// Thread-safe. One lock, held for a few list operations: never while a model runs, a request is destroyed (its error
/// may hold a Python object) or anybody sleeps. A batch that take(), next() or begin_caller_run() gave out occupies a
/// slot until finish_run().
class Scheduler {
 public:
  using Accept = FunctionRef<bool(const LayoutRef&, int64_t rows)>;

  Scheduler(const SchedulerOptions& options, const Clock& clock);

  /// Reserves a place in the queue. False where it is full or others wait for room. Lock-free.
  bool try_reserve();
  /// Gives back a place that no request came to use.
  void unreserve();
  /// Queues requests, each of which has a place, in order; those that have ended meanwhile lose it. Wakes a worker
  /// unless `wake` is false: then call kick().
  void enqueue(std::span<const RequestRef> requests, bool wake = true);
  /// Lets a request of phase kWaiting wait for a place; it gets one in its turn.
  void park(const RequestRef& request);
  /// Takes a request out, wherever it waits.
  void remove(Request& request);
  /// Moves out those whose time has passed; the caller ends them.
  void sweep(std::vector<RequestRef>& expired);

  /// Takes a slot for a batch of `rows` that never was in the queue; false where it is not idle, or the policy would
  /// have it wait.
  bool begin_caller_run(int64_t rows);
  /// Takes the next batch if there is one, a slot is free and `accept` agrees. `dropped` gets what ended in the queue.
  bool take(Batch& batch, std::vector<RequestRef>& dropped, Accept accept);
  /// A worker's call: sleeps until there is a batch. An empty batch means that only `dropped` has something; false,
  /// that stop() was called.
  bool next(Batch& batch, std::vector<RequestRef>& dropped);
  /// Frees the slot after a batch that took `nanos`. Wakes a worker where there is something for it, unless the caller
  /// is one and calls next() now.
  void finish_run(Nanos nanos, bool is_worker);
  /// Wakes a worker where there is something for it.
  void kick();
  /// Lets every worker look at the clock again: for clocks that do not run by themselves.
  void poke();

  /// From now on nobody waits for company.
  void drain();
  /// Moves out all that waits. Later arrivals are still accepted.
  void clear(std::vector<RequestRef>& out);
  void stop();

  QueueFigures figures() const;
  /// As figures().depth, but lock-free: requests that are about to join count already.
  size_t depth() const {
    return places_.load(std::memory_order_relaxed) + parked_count_.load(std::memory_order_relaxed);
  }

 private:
  bool reserve();
  bool take_locked(Batch& batch, std::vector<RequestRef>& dropped, Nanos now, Nanos* until, const Accept* accept)
      REQUIRES(mutex_);
  Decision decide_locked(Nanos now) const REQUIRES(mutex_);
  bool claim_worker_locked() REQUIRES(mutex_);
  void promote_locked(std::vector<RequestRef>& dropped) REQUIRES(mutex_);
  void release_place_locked(std::vector<RequestRef>& dropped) REQUIRES(mutex_);
  void wake(bool claimed);

  const SchedulerOptions options_;
  const Clock& clock_;
  const bool steady_;  // the clock is the one that futexes sleep by

  // Places taken: requests that are queued, or reserved and not queued yet. Changed by compare-and-swap, so that the
  // bound is exact; relaxed, as it orders nothing. parked_count_ mirrors parked_.size() for try_reserve().
  std::atomic<size_t> places_{0};
  std::atomic<size_t> parked_count_{0};
  std::atomic<Nanos> typical_run_{0};

  // A sleeping worker watches word_. A waker counts it out of idle_ and into claims_ before it wakes it, so that ten
  // arrivals make one system call.
  std::atomic<uint32_t> word_{0};

  mutable Mutex mutex_;  // guards what follows
  Queue queue_ GUARDED_BY(mutex_);
  Queue parked_ GUARDED_BY(mutex_);
  int running_ GUARDED_BY(mutex_) = 0;
  int idle_ GUARDED_BY(mutex_) = 0;
  int claims_ GUARDED_BY(mutex_) = 0;
  Nanos alarm_ GUARDED_BY(mutex_) = kNever;  // the earliest time that a sleeping worker wakes by itself
  bool draining_ GUARDED_BY(mutex_) = false;
  bool stopped_ GUARDED_BY(mutex_) = false;
};

}  // namespace inferkit
