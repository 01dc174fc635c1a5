#include "batching/scheduler.h"

#include <algorithm>
#include <new>

#include "platform/fork.h"
#include "platform/futex.h"

namespace inferkit {

Place::~Place() {
  if (scheduler_) scheduler_->unreserve();
}

OpenCount::Hold Slot::release(bool is_worker) noexcept {
  if (Scheduler* scheduler = std::exchange(scheduler_, nullptr)) scheduler->finish_run(is_worker);
  return std::move(open_);
}

Scheduler::Scheduler(const SchedulerOptions& options, const Clock& clock, OpenCount& open)
    : options_(options),
      clock_(clock),
      open_(open),
      steady_(dynamic_cast<const SteadyClock*>(&clock) != nullptr),
      fork_generation_(fork_generation()),
      queue_(options.policy) {}

/// In the child of a fork, where somebody who is not there may hold the lock.
bool Scheduler::foreign() const { return fork_generation_ != fork_generation(); }

// Places

Place Scheduler::try_reserve() noexcept {
  const bool free = parked_count_.load(std::memory_order_relaxed) == 0 && reserve();  // no overtaking
  return free ? Place(*this) : Place();
}

bool Scheduler::reserve() noexcept {
  size_t taken = places_.load(std::memory_order_relaxed);
  do {
    if (options_.max_queue_size && taken >= options_.max_queue_size) return false;
  } while (!places_.compare_exchange_weak(taken, taken + 1, std::memory_order_relaxed));
  return true;
}

void Scheduler::unreserve() noexcept {
  if (foreign()) return;
  RequestList dropped;
  bool claimed;
  {
    MutexLock lock(mutex_);
    places_.fetch_sub(1, std::memory_order_relaxed);
    promote_locked(dropped);
    claimed = claim_worker_locked();
  }
  wake(claimed);
}

void Scheduler::release_place_locked(Request& request, RequestList& dropped) noexcept {
  if (!request.place) return;
  request.place.leave();
  places_.fetch_sub(1, std::memory_order_relaxed);
  promote_locked(dropped);
}

/// Counts back the places of those in `of`, and `more` that have been taken off already.
void Scheduler::leave_locked(const RequestList& of, size_t more) noexcept {
  for (Request* request = of.first(); request; request = RequestList::next(*request)) {
    if (!request->place) continue;
    request->place.leave();
    ++more;
  }
  places_.fetch_sub(more, std::memory_order_relaxed);
}

void Scheduler::promote_locked(RequestList& dropped) noexcept {
  if (parked_.empty()) return;
  while (!parked_.empty() && reserve()) {
    RequestRef request = parked_.unlink(*parked_.first());
    if (request->advance(Phase::kWaiting, Phase::kQueued)) {
      request->place = Place(*this);
      queue_.push(std::move(request));
    } else {
      places_.fetch_sub(1, std::memory_order_relaxed);
      dropped.push(std::move(request));
    }
  }
  parked_count_.store(parked_.size(), std::memory_order_relaxed);
}

// Coming and going

void Scheduler::enqueue(std::span<const RequestRef> requests, bool wake_worker) noexcept {
  RequestList dropped;
  bool claimed = false;
  {
    MutexLock lock(mutex_);
    for (const RequestRef& request : requests) {
      // A canceller claims the request first and looks for it here second, so one of the two sees the other.
      if (request->phase() == Phase::kQueued) {
        queue_.push(request);
      } else {
        release_place_locked(*request, dropped);
      }
    }
    if (wake_worker) claimed = claim_worker_locked();
  }
  wake(claimed);
}

bool Scheduler::park(const RequestRef& request) noexcept {
  RequestList dropped;
  bool claimed;
  {
    MutexLock lock(mutex_);
    if (!may_park()) return false;
    parked_.push(request);
    parked_count_.store(parked_.size(), std::memory_order_relaxed);
    promote_locked(dropped);  // room may have come since try_reserve() said no
    claimed = claim_worker_locked();
  }
  wake(claimed);
  return true;
}

void Scheduler::remove(Request& request) noexcept {
  RequestList dropped;
  bool claimed = false;
  {
    MutexLock lock(mutex_);
    RequestRef found = queue_.remove(request);
    if (!found) {
      found = parked_.remove(request);
      parked_count_.store(parked_.size(), std::memory_order_relaxed);
    }
    if (found) dropped.push(std::move(found));
    if (request.place) {  // also where it is on its way to the queue
      release_place_locked(request, dropped);
      claimed = claim_worker_locked();
    }
  }
  wake(claimed);
}

void Scheduler::sweep(RequestList& expired) noexcept {
  bool claimed;
  {
    MutexLock lock(mutex_);
    const Nanos now = clock_.now();
    queue_.sweep(now, expired);
    for (Request *next, *request = parked_.first(); request; request = next) {
      next = Line::next(*request);
      if (request->deadline <= now) expired.push(parked_.unlink(*request));
    }
    leave_locked(expired);
    promote_locked(expired);
    parked_count_.store(parked_.size(), std::memory_order_relaxed);
    claimed = claim_worker_locked();
  }
  wake(claimed);
}

// Running

bool Scheduler::claim_worker_locked() noexcept {
  if (queue_.empty() || running_ >= options_.max_concurrent || idle_ == 0) return false;
  const Nanos now = clock_.now();
  const Decision decision = decide(queue_.candidates(now).span(), now, options_.policy, queue_.draining());
  // Where it is to wait, some sleeper's alarm may be early enough already.
  if (decision.kind == Decision::Kind::kWait && alarm_ <= decision.until) return false;
  --idle_;
  ++claims_;
  word_.fetch_add(1, std::memory_order_relaxed);  // a worker reads it under the lock before it sleeps
  return true;
}

void Scheduler::wake(bool claimed) noexcept {
  if (claimed) futex_wake(word_, 1);
}

Slot Scheduler::begin_caller_run(int64_t rows) noexcept {
  if (options_.policy.max_delay > 0 && rows < options_.policy.max_rows) return {};
  MutexLock lock(mutex_);
  if (!queue_.empty() || !parked_.empty() || running_ >= options_.max_concurrent) return {};
  ++running_;
  return {*this, OpenCount::Hold(open_)};
}

/// Makes room for as many requests as the bucket may give; where there is no memory, it gives fewer.
static void make_room(std::vector<RequestRef>& requests, size_t wanted) noexcept {
  if (wanted <= requests.capacity()) return;
  try {
    requests.reserve(std::max(wanted, 2 * requests.capacity()));
  } catch (const std::bad_alloc&) {
  }
}

bool Scheduler::take_locked(Batch& batch, RequestList& dropped, Nanos now, Nanos* until,
                            const Accept* accept) noexcept {
  bool taken = false;
  while (!taken && !queue_.empty() && running_ < options_.max_concurrent) {
    const Candidates candidates = queue_.candidates(now);
    const Decision decision = decide(candidates.span(), now, options_.policy, queue_.draining());
    if (decision.kind != Decision::Kind::kDispatch) {
      *until = decision.until;
      break;
    }
    Bucket& bucket = *candidates.buckets[decision.bucket];
    const int64_t most = std::min(bucket.rows(), options_.policy.max_rows);
    const LayoutRef& layout = bucket.first()->layout;
    if (accept && !(*accept)(layout, most)) break;
    batch.layout = layout;
    batch.reason = decision.reason;
    batch.rows = 0;
    make_room(batch.requests, std::min(bucket.size(), static_cast<size_t>(most)));
    // First, so that a drain never finds the batch neither in the queue nor running.
    OpenCount::Hold open(open_);
    queue_.take(bucket, options_.policy.max_rows, now, batch.requests, dropped);
    if (batch.requests.empty()) continue;  // all of them had ended
    for (const RequestRef& request : batch.requests) batch.rows += request->rows;
    ++running_;
    batch.slot = Slot(*this, std::move(open));
    taken = true;
  }
  for (const RequestRef& request : batch.requests) request->place.leave();
  leave_locked(dropped, batch.requests.size());
  promote_locked(dropped);
  return taken;
}

bool Scheduler::take(Batch& batch, RequestList& dropped, Accept accept) noexcept {
  MutexLock lock(mutex_);
  Nanos until = kNever;
  return take_locked(batch, dropped, clock_.now(), &until, &accept);
}

bool Scheduler::next(Batch& batch, RequestList& dropped) noexcept {
  bool slept = false;
  for (;;) {
    uint32_t seen = 0;
    Nanos until = kNever;
    bool taken = false, claimed = false;
    {
      MutexLock lock(mutex_);
      if (slept) {
        --(claims_ ? claims_ : idle_);
        alarm_ = kNever;  // other sleepers wake by theirs all the same
      }
      taken = take_locked(batch, dropped, clock_.now(), &until, nullptr);
      if (taken || !dropped.empty()) {
        claimed = claim_worker_locked();  // there may be a batch for a colleague, too
      } else if (stopped_) {
        return false;
      } else {
        ++idle_;
        alarm_ = std::min(alarm_, until);
        seen = word_.load(std::memory_order_relaxed);
      }
    }
    wake(claimed);
    if (taken || !dropped.empty()) return true;
    slept = true;
    futex_wait(word_, seen, steady_ ? until : kNever);
  }
}

void Scheduler::learn(Nanos nanos) noexcept {
  // Moves an eighth of the way: a figure for the policy, not an exact one, so lost updates do not matter.
  const Nanos typical = typical_run_.load(std::memory_order_relaxed);
  typical_run_.store(typical ? typical + (nanos - typical) / 8 : nanos, std::memory_order_relaxed);
}

void Scheduler::finish_run(bool is_worker) noexcept {
  if (foreign()) return;
  bool claimed = false;
  {
    MutexLock lock(mutex_);
    --running_;
    queue_.set_headroom(typical_run_.load(std::memory_order_relaxed));
    if (!is_worker) claimed = claim_worker_locked();
  }
  wake(claimed);
}

void Scheduler::kick() noexcept {
  bool claimed;
  {
    MutexLock lock(mutex_);
    claimed = claim_worker_locked();
  }
  wake(claimed);
}

void Scheduler::poke() noexcept {
  {
    MutexLock lock(mutex_);
    word_.fetch_add(1, std::memory_order_relaxed);
  }
  futex_wake_all(word_);
}

// Ending

void Scheduler::drain() noexcept {
  {
    MutexLock lock(mutex_);
    queue_.drain();
  }
  poke();
}

void Scheduler::clear(RequestList& out) noexcept {
  MutexLock lock(mutex_);
  queue_.clear(out);
  while (Request* request = parked_.first()) out.push(parked_.unlink(*request));
  leave_locked(out);
  parked_count_.store(0, std::memory_order_relaxed);
}

void Scheduler::stop() noexcept {
  {
    MutexLock lock(mutex_);
    stopped_ = true;
  }
  poke();
}

QueueFigures Scheduler::figures() const {
  MutexLock lock(mutex_);
  const Nanos oldest = std::min(queue_.oldest(), parked_.oldest());
  return {places_.load(std::memory_order_relaxed) + parked_.size(), running_,
          oldest == kNever ? 0 : std::max<Nanos>(0, clock_.now() - oldest)};
}

}  // namespace inferkit
