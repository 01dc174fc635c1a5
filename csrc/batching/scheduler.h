// Who runs next, and where: the queue, the places in it, the slots for running batches and the workers that sleep.
#pragma once
#include <algorithm>
#include <atomic>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "batching/cores.h"
#include "batching/line.h"
#include "batching/open_count.h"
#include "batching/policy.h"
#include "batching/queue.h"
#include "batching/reserve.h"
#include "platform/clock.h"
#include "platform/mutex.h"
#include "platform/thread_pool.h"

namespace inferkit {

struct SchedulerOptions {
  PolicyOptions policy;
  size_t max_queue_size = 0;  // requests that may wait; 0: any number
  int max_concurrent = 1;     // batches that may run at once
  size_t max_waiting = 0;     // requests that may wait for a place; 0: any number
  PaceOptions pace{};
  Cores* cores = nullptr;  // that it shares with other batchers; null: none
  double weight = 1;       // of its share
};

/// The right to run one batch, from the moment it is taken: it counts as open until the slot is given back, which
/// happens at the latest when it is dropped.
class Slot {
 public:
  Slot() = default;
  Slot(Slot&& other) noexcept
      : scheduler_(std::exchange(other.scheduler_, nullptr)),
        until_(other.until_),
        started_(other.started_),
        cores_(other.cores_),
        open_(std::move(other.open_)) {}
  Slot& operator=(Slot&& other) noexcept {
    if (scheduler_) release();
    scheduler_ = std::exchange(other.scheduler_, nullptr);
    until_ = other.until_;
    started_ = other.started_;
    cores_ = other.cores_;
    open_ = std::move(other.open_);
    return *this;
  }
  ~Slot() {
    if (scheduler_) release();
  }

  explicit operator bool() const { return scheduler_ != nullptr; }
  /// Others may run. What is left to hold is that the run's end has not been dealt with yet. Wakes a worker where there
  /// is something for it, unless the caller is one and calls next() now.
  OpenCount::Hold release(bool is_worker = false) noexcept;
  /// The run goes on, but its cores are for others, as it waits for what they do.
  void give_cores_back() noexcept;

 private:
  friend class Scheduler;
  Slot(Scheduler& scheduler, Nanos until, Nanos started, const CoreHold& cores, OpenCount::Hold&& open)
      : scheduler_(&scheduler), until_(until), started_(started), cores_(cores), open_(std::move(open)) {}

  Scheduler* scheduler_ = nullptr;
  Nanos until_ = 0;  // when it is expected back
  Nanos started_ = 0;
  CoreHold cores_;
  OpenCount::Hold open_;
};

/// Requests of one layout on their way through a run; reused by its owner, so that it stops allocating.
struct Batch {
  Batch() { requests.reserve(kFirst); }
  static constexpr size_t kFirst = 8;  // without memory for more, batches are of that many requests

  std::vector<RequestRef> requests;
  LayoutRef layout;
  int64_t rows = 0;
  DispatchReason reason = DispatchReason::kReady;
  Slot slot;                 // that it occupies
  OpenCount::Hold handover;  // see Scheduler::await_handovers()
};

/// What a request that came now had to expect.
struct Outlook {
  Nanos end = 0;          // when it would have its answer
  Nanos spare = 0;        // of its time, what is kept in reserve, for who may overtake it
  Nanos others = kNever;  // how much time it would leave to the one of those behind it that has the least
  Nanos cores = 0;        // of the time until `end`, what may be one wait for cores that other models have
  bool known = false;     // from what is known, not guessed

  /// Whether such a request is let in.
  bool keeps(Nanos deadline) const { return !known || (end <= deadline - spare && others >= 0); }
};

struct QueueFigures {
  size_t depth = 0;  // requests that have a place, or wait for one
  int running = 0;   // batches
  Nanos oldest_wait = 0;
  PaceFigures pace{};  // of the layout whose batches went last
};

/// Thread-safe. One lock, held for a few list operations: never while a model runs, a request is destroyed (its error
/// may hold a Python object) or anybody sleeps. Nothing here throws: no request is lost for want of memory.
class Scheduler {
 public:
  using Accept = FunctionRef<bool(const LayoutRef&, int64_t rows)>;

  /// Batches that were taken, and are not over, are counted in `open`.
  Scheduler(const SchedulerOptions& options, const Clock& clock, OpenCount& open, const Predictor& predictor);

  /// A place in the queue; none where it is full or others wait for room. Lock-free.
  Place try_reserve() noexcept;
  /// Queues requests, each of which has a place, in order; those that have ended meanwhile lose it. Wakes a worker
  /// unless `wake` is false: then call kick().
  void enqueue(std::span<const RequestRef> requests, bool wake = true) noexcept;
  /// Lets a request of phase kWaiting wait for a place; it gets one in its turn.
  /// False, with nothing done, where as many wait as may.
  bool park(const RequestRef& request) noexcept;
  /// Queues one that takes over from another, which has left: it was admitted long ago, so it has its place, if need be
  /// one more than there may be.
  void enqueue_heir(const RequestRef& request) noexcept;
  /// Whether one more may wait; park() says it for sure.
  bool may_park() const noexcept {
    return !options_.max_waiting || parked_count_.load(std::memory_order_relaxed) < options_.max_waiting;
  }
  /// Takes a request out, wherever it waits, and its place back.
  void remove(Request& request) noexcept;
  /// Moves out those whose time has passed; the caller ends them, and holds what this returns until it has.
  [[nodiscard]] OpenCount::Hold sweep(RequestList& expired) noexcept;

  /// Whether a client that has so many places in the queue may have another one: it has fewer than are free. So there
  /// is room for who comes next, however much the others send. Where the queue is full, the answer is the queue's.
  bool spares(size_t held) const noexcept {
    const size_t taken = places_.load(std::memory_order_relaxed);
    return !options_.max_queue_size || taken >= options_.max_queue_size || held < options_.max_queue_size - taken;
  }

  /// When a request that came now would have its answer; `flow` is that of its client, where it has one.
  Outlook outlook(const RowLayout& layout, int64_t rows, int priority, Nanos deadline, Nanos now,
                  const Flow* flow = nullptr) const noexcept;
  /// A request with a deadline that was let in has come to its end: outlooks learn from it what to leave to spare.
  void ended(bool late) noexcept { reserve_.learn(late); }

  /// How long from `now` on until a full queue is likely to have room again: until a batch is over and the next one is
  /// taken. kNever where nothing is known of that. `refused` found it full.
  Nanos room_after(Nanos now, const Request& refused) const noexcept;

  /// A slot for a batch of `rows` that came `now` and never was in the queue; none where it is not idle, or the policy
  /// would have it wait, or the run might not be over by `deadline`: somebody has to wait for that.
  Slot begin_caller_run(const RowLayout& layout, int64_t rows, Nanos deadline, Nanos now) noexcept;
  /// Takes the next batch if there is one, a slot is free and `accept` agrees. `dropped` gets what ended in the queue;
  /// `until`, where it is not null and there is none, when there may be one.
  bool take(Batch& batch, RequestList& dropped, Accept accept, Nanos* until = nullptr) noexcept;
  /// For simulations, in which no thread sleeps: as if all did that have nothing to run, but for whoever asks next.
  void let_others_sleep() noexcept;
  /// A worker's call: sleeps until there is a batch. An empty batch means that only `dropped` has something; false,
  /// that stop() was called.
  bool next(Batch& batch, RequestList& dropped) noexcept;
  /// Wakes a worker where there is something for it.
  void kick() noexcept;
  /// Lets every worker look at the clock again: for clocks that do not run by themselves.
  void poke() noexcept;
  /// Sleeps until what others have taken out has got on: what had expired has ended, a batch is seen to run. For such
  /// clocks too, and nothing on those that run.
  void await_handovers() const noexcept { handovers_.wait(kNever); }

  /// Runs of that layout are another model's from now on.
  void forget_pace(const RowLayout& layout) noexcept;
  /// From now on nobody waits for company.
  void drain() noexcept;
  /// Moves out all that waits. Later arrivals are still accepted.
  void clear(RequestList& out) noexcept;
  void stop() noexcept;

  QueueFigures figures() const;
  CoreFigures core_figures() const;
  /// As figures().depth, but lock-free: requests that are about to join count already.
  size_t depth() const {
    return places_.load(std::memory_order_relaxed) + parked_count_.load(std::memory_order_relaxed);
  }

 private:
  friend class Place;
  friend class Slot;

  bool foreign() const;
  bool reserve() noexcept;
  void unreserve() noexcept;
  Slot begin_run_locked(const RowLayout& layout, int64_t rows, Nanos now, const CoreHold& cores,
                        OpenCount::Hold&& open) noexcept REQUIRES(mutex_);
  void renew_locked(const RowLayout& layout, Nanos now) noexcept REQUIRES(mutex_);
  void finish_run(Slot& slot, bool is_worker) noexcept;
  void give_cores_back(Slot& slot) noexcept;
  bool cores_matter_locked() const noexcept REQUIRES(mutex_) { return cores_ && cores_->matters(); }
  bool find_cores_locked(const RowLayout& layout, int64_t rows, Nanos now, bool may_wait, CoreHold& hold) noexcept
      REQUIRES(mutex_);
  CoreWait core_wait_locked(Nanos now) const noexcept REQUIRES(mutex_) {
    return cores_matter_locked() ? cores_->delay(now) : CoreWait{};
  }
  void tidy_cores_locked(bool taken, bool refused, Nanos now) noexcept REQUIRES(mutex_);
  bool take_locked(Batch& batch, RequestList& dropped, Nanos now, Nanos* until, const Accept* accept) noexcept
      REQUIRES(mutex_);
  /// Runs that there can be at once, by the workers and by the limit on cores.
  int at_once_locked() const noexcept REQUIRES(mutex_) {
    return cores_ ? std::min(options_.max_concurrent, cores_->runs_at_once(predictor_.threads()))
                  : options_.max_concurrent;
  }
  int64_t share_locked(const Bucket& bucket) const noexcept REQUIRES(mutex_);
  int64_t most_of(const RowLayout& layout) const { return std::min(options_.policy.max_rows, layout.most_rows); }
  /// Whether whoever takes the next batch is the only one who is free, and may wait for company.
  bool may_wait_locked() const REQUIRES(mutex_) {
    return options_.pace.company && running_ + 1 == options_.max_concurrent;
  }
  void came_locked(Nanos now, int64_t rows) noexcept REQUIRES(mutex_);
  bool claim_worker_locked() noexcept REQUIRES(mutex_);
  void promote_locked(RequestList& dropped) noexcept REQUIRES(mutex_);
  void count_locked(const Request& request) noexcept REQUIRES(mutex_);
  void release_place_locked(Request& request, RequestList& dropped) noexcept REQUIRES(mutex_);
  void leave_locked(const RequestList& of, size_t more = 0) noexcept REQUIRES(mutex_);
  /// Under the lock that things leave the queue by, so that whoever takes it afterwards finds them there or counted.
  OpenCount::Hold hand_over_locked(bool any) noexcept REQUIRES(mutex_) {
    return any && !steady_ ? OpenCount::Hold(handovers_) : OpenCount::Hold();
  }
  void wake(bool claimed) noexcept;

  const SchedulerOptions options_;
  const Clock& clock_;
  OpenCount& open_;
  const Predictor& predictor_;
  Reserve reserve_;
  const bool steady_;  // the clock is the one that futexes sleep by
  const uint32_t fork_generation_;
  OpenCount handovers_;

  // Places taken: requests that are queued, or reserved and not queued yet. Changed by compare-and-swap, so that the
  // bound is exact; relaxed, as it orders nothing. parked_count_ mirrors parked_.size() for try_reserve().
  std::atomic<size_t> places_{0};
  std::atomic<size_t> parked_count_{0};

  // A sleeping worker watches word_. A waker counts it out of idle_ and into claims_ before it wakes it, so that ten
  // arrivals make one system call.
  std::atomic<uint32_t> word_{0};

  mutable Mutex mutex_;  // guards what follows
  Queue queue_ GUARDED_BY(mutex_);
  Line parked_ GUARDED_BY(mutex_);
  const std::unique_ptr<Cores::Use> cores_ GUARDED_BY(mutex_);  // null where it shares none
  int running_ GUARDED_BY(mutex_) = 0;
  Nanos until_sum_ GUARDED_BY(mutex_) = 0;  // of when the running ones are expected to be over
  int idle_ GUARDED_BY(mutex_) = 0;
  int claims_ GUARDED_BY(mutex_) = 0;
  Nanos alarm_ GUARDED_BY(mutex_) = kNever;  // the earliest time that a sleeping worker wakes by itself
  PaceFigures pace_ GUARDED_BY(mutex_);      // of the last batch whose layout found them anew
  bool stopped_ GUARDED_BY(mutex_) = false;
};

}  // namespace inferkit
