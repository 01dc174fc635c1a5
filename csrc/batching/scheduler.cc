#include "batching/scheduler.h"

#include <algorithm>

#include "platform/futex.h"

namespace inferkit {

Scheduler::Scheduler(const SchedulerOptions& options, const Clock& clock)
    : options_(options), clock_(clock), steady_(dynamic_cast<const SteadyClock*>(&clock) != nullptr) {}

bool Scheduler::try_reserve() {
  return parked_count_.load(std::memory_order_relaxed) == 0 && reserve();  // no overtaking
}

bool Scheduler::reserve() {
  size_t taken = places_.load(std::memory_order_relaxed);
  do {
    if (options_.max_queue_size && taken >= options_.max_queue_size) return false;
  } while (!places_.compare_exchange_weak(taken, taken + 1, std::memory_order_relaxed));
  return true;
}

void Scheduler::unreserve() {
  std::vector<RequestRef> dropped;
  bool claimed;
  {
    MutexLock lock(mutex_);
    release_place_locked(dropped);
    claimed = claim_worker_locked();
  }
  wake(claimed);
}

void Scheduler::release_place_locked(std::vector<RequestRef>& dropped) {
  places_.fetch_sub(1, std::memory_order_relaxed);
  if (!parked_.empty()) promote_locked(dropped);
}

void Scheduler::promote_locked(std::vector<RequestRef>& dropped) {
  while (!parked_.empty()) {
    if (!reserve()) break;
    RequestRef request = parked_.remove(*parked_.front());
    if (request->advance(Phase::kWaiting, Phase::kQueued)) {
      queue_.push(std::move(request));
    } else {
      dropped.push_back(std::move(request));
      places_.fetch_sub(1, std::memory_order_relaxed);
    }
  }
  parked_count_.store(parked_.size(), std::memory_order_relaxed);
}

void Scheduler::enqueue(std::span<const RequestRef> requests, bool wake_worker) {
  std::vector<RequestRef> dropped;
  bool claimed = false;
  {
    MutexLock lock(mutex_);
    for (const RequestRef& request : requests) {
      // A canceller ends the request first and looks for it here second, so one of the two sees the other.
      if (request->done()) {
        release_place_locked(dropped);
      } else {
        queue_.push(request);
      }
    }
    if (wake_worker) claimed = claim_worker_locked();
  }
  wake(claimed);
}

void Scheduler::park(const RequestRef& request) {
  std::vector<RequestRef> dropped;
  bool claimed;
  {
    MutexLock lock(mutex_);
    parked_.push(request);
    promote_locked(dropped);  // room may have come since try_reserve() said no
    claimed = claim_worker_locked();
  }
  wake(claimed);
}

void Scheduler::remove(Request& request) {
  std::vector<RequestRef> dropped;
  bool claimed = false;
  {
    MutexLock lock(mutex_);
    if (RequestRef queued = queue_.remove(request)) {
      dropped.push_back(std::move(queued));
      release_place_locked(dropped);
      claimed = claim_worker_locked();
    } else if (RequestRef parked = parked_.remove(request)) {
      dropped.push_back(std::move(parked));
      parked_count_.store(parked_.size(), std::memory_order_relaxed);
    }
  }
  wake(claimed);
}

void Scheduler::sweep(std::vector<RequestRef>& expired) {
  bool claimed;
  {
    MutexLock lock(mutex_);
    const Nanos now = clock_.now();
    const size_t before = expired.size();
    queue_.sweep(now, expired);
    places_.fetch_sub(expired.size() - before, std::memory_order_relaxed);
    parked_.sweep(now, expired);
    promote_locked(expired);
    claimed = claim_worker_locked();
  }
  wake(claimed);
}

Decision Scheduler::decide_locked(Nanos now) const {
  if (queue_.empty()) return {};
  return decide(queue_.states(), now, typical_run_.load(std::memory_order_relaxed), options_.policy, draining_);
}

bool Scheduler::claim_worker_locked() {
  if (queue_.empty() || running_ >= options_.max_concurrent || idle_ == 0) return false;
  const Decision decision = decide_locked(clock_.now());
  // Where it is to wait, some sleeper's alarm may be early enough already.
  if (decision.kind == Decision::Kind::kWait && alarm_ <= decision.until) return false;
  --idle_;
  ++claims_;
  word_.fetch_add(1, std::memory_order_relaxed);  // a worker reads it under the lock before it sleeps
  return true;
}

void Scheduler::wake(bool claimed) {
  if (claimed) futex_wake(word_, 1);
}

bool Scheduler::begin_caller_run(int64_t rows) {
  if (options_.policy.max_delay > 0 && rows < options_.policy.max_rows) return false;
  MutexLock lock(mutex_);
  if (!queue_.empty() || !parked_.empty() || running_ >= options_.max_concurrent) return false;
  ++running_;
  return true;
}

bool Scheduler::take_locked(Batch& batch, std::vector<RequestRef>& dropped, Nanos now, Nanos* until,
                            const Accept* accept) {
  if (queue_.empty() || running_ >= options_.max_concurrent) return false;
  const size_t dropped_before = dropped.size();
  bool taken = false;
  for (;;) {
    const Decision decision = decide_locked(now);
    if (decision.kind != Decision::Kind::kDispatch) {
      *until = decision.until;
      break;
    }
    const LayoutRef& layout = queue_.layout(decision.bucket);
    const int64_t rows = std::min(queue_.states()[decision.bucket].rows, options_.policy.max_rows);
    if (accept && !(*accept)(layout, rows)) break;
    batch.layout = layout;
    batch.reason = decision.reason;
    queue_.take(decision.bucket, options_.policy.max_rows, now, batch.requests, dropped);
    if (batch.requests.empty()) continue;  // all of them had ended
    batch.rows = 0;
    for (const RequestRef& request : batch.requests) batch.rows += request->rows;
    ++running_;
    taken = true;
    break;
  }
  const size_t left = (taken ? batch.requests.size() : 0) + dropped.size() - dropped_before;
  if (left) {
    places_.fetch_sub(left, std::memory_order_relaxed);
    if (!parked_.empty()) promote_locked(dropped);
  }
  return taken;
}

bool Scheduler::take(Batch& batch, std::vector<RequestRef>& dropped, Accept accept) {
  MutexLock lock(mutex_);
  Nanos until = kNever;
  return take_locked(batch, dropped, clock_.now(), &until, &accept);
}

bool Scheduler::next(Batch& batch, std::vector<RequestRef>& dropped) {
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

void Scheduler::finish_run(Nanos nanos, bool is_worker) {
  // Moves an eighth of the way: a figure for the policy, not an exact one, so lost updates do not matter.
  const Nanos typical = typical_run_.load(std::memory_order_relaxed);
  typical_run_.store(typical ? typical + (nanos - typical) / 8 : nanos, std::memory_order_relaxed);
  bool claimed = false;
  {
    MutexLock lock(mutex_);
    --running_;
    if (!is_worker) claimed = claim_worker_locked();
  }
  wake(claimed);
}

void Scheduler::kick() {
  bool claimed;
  {
    MutexLock lock(mutex_);
    claimed = claim_worker_locked();
  }
  wake(claimed);
}

void Scheduler::poke() {
  {
    MutexLock lock(mutex_);
    word_.fetch_add(1, std::memory_order_relaxed);
  }
  futex_wake_all(word_);
}

void Scheduler::drain() {
  {
    MutexLock lock(mutex_);
    draining_ = true;
  }
  poke();
}

void Scheduler::clear(std::vector<RequestRef>& out) {
  MutexLock lock(mutex_);
  const size_t before = out.size();
  queue_.clear(out);
  places_.fetch_sub(out.size() - before, std::memory_order_relaxed);
  parked_.clear(out);
  parked_count_.store(0, std::memory_order_relaxed);
}

void Scheduler::stop() {
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
