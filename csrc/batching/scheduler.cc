#include "batching/scheduler.h"

#include <algorithm>
#include <cmath>
#include <new>

#include "batching/cut.h"
#include "batching/share.h"
#include "platform/fork.h"
#include "platform/futex.h"

namespace inferkit {

Place::~Place() {
  if (scheduler_) scheduler_->unreserve();
}

namespace {
// Besides the run: from the alarm of a sleeping worker to the start of its run, and from its end to whoever waits.
constexpr Nanos kSlack = 500'000;
// What waits before a request is judged by its median, and a little more.
constexpr double kMargin = 1.05;
// Of the time of a request that has to wait, what is kept at least for batches that fall otherwise than forecast, twice
// that where there are other layouts; and where requests with less time have overtaken others, for more of them.
constexpr double kSpare = 0.06, kSpareForOvertakers = 0.18;

/// The caller counts the place back.
void leave_place(Request& request) noexcept {
  request.place.leave();
  if (request.member) request.member->leave();
}
}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options, const Clock& clock, OpenCount& open, const Predictor& predictor)
    : options_(options),
      clock_(clock),
      open_(open),
      predictor_(predictor),
      steady_(dynamic_cast<const SteadyClock*>(&clock) != nullptr),
      fork_generation_(fork_generation()),
      queue_(options.policy, &predictor),
      cores_(options.cores ? std::make_unique<Cores::Use>(*options.cores, options.weight, word_) : nullptr) {
  queue_.set_slack(kSlack);
  if (!steady_) handovers_.watch();
}

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
  leave_place(request);
  places_.fetch_sub(1, std::memory_order_relaxed);
  promote_locked(dropped);
}

/// Counts back the places of those in `of`, and `more` that have been taken off already.
void Scheduler::leave_locked(const RequestList& of, size_t more) noexcept {
  for (Request* request = of.first(); request; request = RequestList::next(*request)) {
    if (!request->place) continue;
    leave_place(*request);
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
      if (request->member) request->member->hold();
      queue_.push(std::move(request));
    } else {
      places_.fetch_sub(1, std::memory_order_relaxed);
      dropped.push(std::move(request));
    }
  }
  parked_count_.store(parked_.size(), std::memory_order_relaxed);
}

// Coming and going

/// As load, for the sake of a target: once, when it comes.
void Scheduler::count_locked(const Request& request) noexcept {
  if (options_.pace.target == 0) return;
  request.layout->pace.counts(request.times.enqueued.load(std::memory_order_relaxed), request.rows);
}

void Scheduler::enqueue(std::span<const RequestRef> requests, bool wake_worker) noexcept {
  RequestList dropped;
  bool claimed = false;
  {
    MutexLock lock(mutex_);
    const int64_t before = queue_.rows();
    for (const RequestRef& request : requests) {
      // A canceller claims the request first and looks for it here second, so one of the two sees the other.
      if (request->phase() == Phase::kQueued) {
        count_locked(*request);
        queue_.push(request);
      } else {
        release_place_locked(*request, dropped);
      }
    }
    if (options_.pace.company && queue_.rows() > before) {
      came_locked(requests.back()->times.enqueued.load(std::memory_order_relaxed), queue_.rows() - before);
    }
    if (wake_worker) claimed = claim_worker_locked();
  }
  wake(claimed);
}

/// So many rows have joined the queue.
void Scheduler::came_locked(Nanos now, int64_t rows) noexcept {
  const Bucket* only = queue_.only();
  if (!only) return;  // there is something else to run meanwhile, whoever comes
  const RowLayout& layout = *only->first()->layout;
  if (only->rows() == rows && may_wait_locked()) {
    layout.pace.could_go(now, rows, most_of(layout), layout.cost);
  } else {
    layout.pace.came(now, rows);
  }
}

bool Scheduler::park(const RequestRef& request) noexcept {
  RequestList dropped;
  bool claimed;
  {
    MutexLock lock(mutex_);
    if (!may_park()) return false;
    request->turn = queue_.turn_of(*request);
    count_locked(*request);
    parked_.push(request);
    parked_count_.store(parked_.size(), std::memory_order_relaxed);
    promote_locked(dropped);  // room may have come since try_reserve() said no
    claimed = claim_worker_locked();
  }
  wake(claimed);
  return true;
}

void Scheduler::enqueue_heir(const RequestRef& request) noexcept {
  bool claimed = false;
  {
    MutexLock lock(mutex_);
    if (request->phase() != Phase::kQueued) return;  // as in enqueue()
    places_.fetch_add(1, std::memory_order_relaxed);
    request->place = Place(*this);
    if (request->member) request->member->hold();
    queue_.push(request);
    claimed = claim_worker_locked();
  }
  wake(claimed);
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

OpenCount::Hold Scheduler::sweep(RequestList& expired) noexcept {
  OpenCount::Hold handover;
  bool claimed;
  {
    MutexLock lock(mutex_);
    const Nanos now = clock_.now();
    queue_.sweep(now, expired);
    while (Request* request = parked_.first_due(now)) expired.push(parked_.unlink(*request));
    // By the clock of futexes, who waits for room wakes by itself.
    for (Request* next = steady_ ? nullptr : parked_.first(); Request* request = next;) {
      next = Line::next(*request);
      if (request->admit_by <= now) expired.push(parked_.unlink(*request));
    }
    leave_locked(expired);
    promote_locked(expired);
    parked_count_.store(parked_.size(), std::memory_order_relaxed);
    handover = hand_over_locked(!expired.empty());
    claimed = claim_worker_locked();
  }
  wake(claimed);
  return handover;
}

// Running

bool Scheduler::claim_worker_locked() noexcept {
  if (queue_.empty() || running_ >= options_.max_concurrent || idle_ == 0) return false;
  if (cores_ && cores_->waits()) return false;  // one is awake, or will be when there is a core
  const Nanos now = clock_.now();
  const Candidates candidates = queue_.candidates(now, may_wait_locked());
  const Decision decision = decide(candidates.span(), now, options_.policy, queue_.draining());
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

/// Of the layout of a batch that goes now.
void Scheduler::renew_locked(const RowLayout& layout, Nanos now) noexcept {
  layout.pace.renew(now, options_.pace, most_of(layout), layout.cost);
  pace_ = layout.pace.figures(now, most_of(layout), layout.cost);
}

// Inline, and so what they call: every call of an idle batcher passes through here, in less than a microsecond.
inline Slot Scheduler::begin_run_locked(const RowLayout& layout, int64_t rows, Nanos now, const CoreHold& cores,
                                        OpenCount::Hold&& open) noexcept {
  const Nanos until = now + predictor_.typical(layout, rows);
  if (options_.pace.sizes && layout.pace.went(now, options_.pace)) renew_locked(layout, now);
  ++running_;
  until_sum_ += until;
  return {*this, until, now, cores, std::move(open)};
}

/// Whether the cores that all batchers share leave room for a run. With `may_wait`, a worker that finds none is woken
/// when there is.
bool Scheduler::find_cores_locked(const RowLayout& layout, int64_t rows, Nanos now, bool may_wait,
                                  CoreHold& hold) noexcept {
  return cores_->begin(predictor_.threads(), predictor_.typical(layout, rows), may_wait, now, hold);
}

/// After a look for a batch, of a worker where none was `refused` to the thread of an event loop: nobody waits for
/// cores without a batch and a worker for it, or keeps any.
void Scheduler::tidy_cores_locked(bool taken, bool refused, Nanos now) noexcept {
  const bool others = idle_ + claims_ > 0 && running_ < options_.max_concurrent;
  const bool batch = taken ? !queue_.empty() && others : refused;
  if (batch) {
    cores_->give_back();
  } else {
    cores_->rest(now);
  }
}

Slot Scheduler::begin_caller_run(const RowLayout& layout, int64_t rows, Nanos deadline, Nanos now) noexcept {
  const PolicyOptions& policy = options_.policy;
  if (policy.max_delay > 0 && rows < std::min(policy.max_rows, layout.most_rows) && !policy.alone) return {};
  if (deadline != kNever) {
    const Forecast run = predictor_.forecast(layout, rows);
    // A figure that is no longer fresh is good enough where there is plenty of time.
    const Nanos needed = run.known ? run.high + run.high / 4 : 4 * run.high;
    if (!run.seen || now + kSlack + needed > deadline) return {};
  }
  MutexLock lock(mutex_);
  if (!queue_.empty() || !parked_.empty() || running_ >= options_.max_concurrent) return {};
  if (options_.pace.target > 0) {
    if (layout.pace.delay() > 0 && rows < std::min(most_of(layout), layout.pace.pays())) return {};
  }
  if (may_wait_locked()) {
    if (layout.pace.would_wait(rows)) return {};
    layout.pace.could_go(now, rows, most_of(layout), layout.cost);
  }
  CoreHold cores;
  if (cores_matter_locked() && !find_cores_locked(layout, rows, now, false, cores)) return {};
  if (options_.pace.target > 0) layout.pace.counts(now, rows);  // who has to wait is counted in the queue
  return begin_run_locked(layout, rows, now, cores, OpenCount::Hold(open_));
}

Outlook Scheduler::outlook(const RowLayout& layout, int64_t rows, int priority, Nanos deadline, Nanos now,
                           const Flow* flow) const noexcept {
  // A few buckets stand for the others, so that a request costs the same however many there are.
  constexpr int kAsked = 16;
  const int64_t most_of_any = options_.policy.alone ? rows : options_.policy.max_rows;  // of a batch
  MutexLock lock(mutex_);
  const auto most_of = [&](const RowLayout& of) {
    return std::min({most_of_any, of.most_rows, std::max(of.pace.pays(), rows)});
  };
  const int64_t most = most_of(layout);
  Outlook out;
  out.known = true;
  const auto run_of = [&](const RowLayout& of, int64_t n) {
    const Forecast run = predictor_.forecast(of, n);
    out.known &= run.known;
    return run;
  };
  // Rows of one layout, in batches, each of which waits for cores that other models have: by itself, so with as many
  // others as could run beside those that do.
  const int at_once = at_once_locked();
  const CoreWait core = core_wait_locked(now);
  const Nanos core_each = core.typical * std::max(1, at_once - running_);
  out.cores = core.likely;
  const auto drain = [&](const RowLayout& of, int64_t n) {
    double work = 0;
    const int64_t each = most_of(of);
    if (n >= each) work += double(n / each) * double(core_each + run_of(of, each).typical);
    if (n % each) work += double(core_each + run_of(of, n % each).typical);
    return work;
  };
  const Nanos turn = queue_.turn_of(now, deadline, priority);
  const double part = flow && queue_.is_fair() ? queue_.part_before(*flow, turn) : -1;  // of each bucket
  const auto rows_before = [&](const Bucket& bucket) {
    return part < 0 ? bucket.rows_before(turn) : std::llround(part * double(bucket.rows()));
  };
  double before = 0, others = 0;
  if (running_ >= at_once) before = std::max(0.0, double(until_sum_ - running_ * now));
  int64_t asked = 0;
  const int64_t left = queue_.rows() - (layout.bucket.queue ? layout.bucket.rows() : 0);
  int buckets = 0;
  for (const Bucket* bucket = queue_.buckets(); bucket && buckets < kAsked; bucket = bucket->next) {
    if (bucket == &layout.bucket) continue;
    ++buckets;
    asked += bucket->rows();
    if (const int64_t n = rows_before(*bucket)) {
      // Those that come after it go, too, where they fill a batch up, and as many have done so lately.
      const RowLayout& other = *bucket->first()->layout;
      const int64_t each = most_of(other);
      const int64_t filled =
          std::max(std::min(bucket->rows(), (n + each - 1) / each * each), std::min(each, other.cost.recent_rows()));
      others += drain(other, options_.policy.alone ? n : filled);
    }
  }
  if (asked < left && asked > 0) others *= double(left) / double(asked);
  // Those of this layout, and whoever is on the way to the queue: of this one, too, and as large, for all we know.
  const size_t places = places_.load(std::memory_order_relaxed);
  const auto on_the_way = static_cast<int64_t>(places > queue_.size() ? places - queue_.size() : 0);
  const int64_t coming = on_the_way * rows + parked_.rows_before(turn);
  const int64_t mine = (layout.bucket.queue ? rows_before(layout.bucket) : 0) + coming + rows;
  const int64_t in_last = mine % most ? mine % most : most;
  Forecast last = run_of(layout, in_last);
  const double own = double(core_each + last.typical);
  // Others will join its batch meanwhile, as many as have done so lately, unless that is cut short for it.
  const bool waits = running_ >= at_once || !queue_.empty();
  if (const int64_t joined = std::min(most, layout.cost.recent_rows()); waits && joined > in_last) {
    const Forecast full = predictor_.forecast(layout, joined);
    if (!Cut::is_efficient(in_last, last, joined, full)) last = full;
  }
  // Somebody has to find out whether what kept all others away is still so.
  if (running_ == 0 && places == 0 && predictor_.stale(layout, now)) out.known = false;
  const double wait = (before + others + drain(layout, mine) - own) / at_once;
  out.end = now + static_cast<Nanos>(std::max(0.0, kMargin * wait)) + core.likely + last.likely;
  if (!layout.bucket.queue) return out;
  const bool overtaken = part >= 0 || layout.bucket.has_overtakers();
  const double spare = overtaken ? kSpareForOvertakers : (buckets > 0 ? 2 : 1) * kSpare + reserve_.part();
  out.spare = static_cast<Nanos>(spare * double(deadline - now));
  if (part >= 0) return out;  // a client has its share, whoever else is late for that
  // Those behind it: in batches of the usual size, of which each waits for its own to be over.
  const int64_t usual = std::clamp<int64_t>(layout.cost.recent_rows(), 1, most);
  const Forecast run = predictor_.forecast(layout, usual);
  const double row = kMargin * double(core_each + run.typical) / double(usual) / at_once;
  const Nanos slack = layout.bucket.slack_after(turn, priority, std::max<Nanos>(1, static_cast<Nanos>(row)));
  if (slack == kNever) return out;
  const double work = kMargin * (before + others) / at_once + row * double(coming + rows);
  out.others = slack - now - static_cast<Nanos>(work) - core.likely - run.likely;
  return out;
}

Nanos Scheduler::room_after(Nanos now, const Request& refused) const noexcept {
  MutexLock lock(mutex_);
  if (running_ >= at_once_locked()) {
    const Nanos left = until_sum_ / running_ - now;
    if (left > 0) return left;
  }
  // Those that run should be over, or nothing is known of them: as long as a run takes of what comes next.
  // Where the places are of those that an event loop has yet to hand on, as long as the refused one would.
  const Bucket* next = queue_.buckets();
  const RowLayout& layout = next ? *next->first()->layout : *refused.layout;
  const int64_t rows = next ? next->rows() : refused.rows;
  const Forecast run = predictor_.forecast(layout, std::min({most_of(layout), layout.pace.pays(), rows}));
  return run.typical > 0 ? run.typical : kNever;
}

/// Makes room for as many requests as the bucket may give; where there is no memory, it gives fewer.
static void make_room(std::vector<RequestRef>& requests, size_t wanted) noexcept {
  if (wanted <= requests.capacity()) return;
  try {
    requests.reserve(std::max(wanted, 2 * requests.capacity()));
  } catch (const std::bad_alloc&) {
  }
}

/// The most rows of its next batch. A delay that is asked for is for company, and what is left would wait for it again.
int64_t Scheduler::share_locked(const Bucket& bucket) const noexcept {
  const Request& first = *bucket.first();
  const int64_t most = first.layout->pace.next(most_of(*first.layout), first.rows);
  if (options_.policy.max_delay > 0 || first.layout->pace.delay() > 0 || options_.policy.alone) return most;
  const int idle = std::min(idle_ + claims_, std::max(0, at_once_locked() - running_ - 1));
  const auto cost = [&](int64_t rows) { return predictor_.typical(*first.layout, rows); };
  return share_of(bucket.rows(), most, first.rows, idle, cost);
}

bool Scheduler::take_locked(Batch& batch, RequestList& dropped, Nanos now, Nanos* until,
                            const Accept* accept) noexcept {
  queue_.set_slack(kSlack + core_wait_locked(now).likely);
  bool taken = false, ready = false;  // ready: but for somebody or something to run it
  CoreHold cores;
  while (!taken && !queue_.empty() && running_ < options_.max_concurrent) {
    ready = false;
    const Candidates candidates = queue_.candidates(now, may_wait_locked());
    const Decision decision = decide(candidates.span(), now, options_.policy, queue_.draining());
    if (decision.kind != Decision::Kind::kDispatch) {
      *until = decision.until;
      break;
    }
    Bucket& first = *candidates.buckets[decision.bucket];
    Bucket& bucket = queue_.is_fair() ? queue_.fairest(first) : first;
    const int64_t most = std::min(queue_.next_rows(bucket), share_locked(bucket));
    const LayoutRef& layout = bucket.first()->layout;
    ready = true;
    if (accept && !(*accept)(layout, most)) break;
    // For as many rows as there may be: what is taken below decides.
    if (cores.cores == 0 && cores_matter_locked() && !find_cores_locked(*layout, most, now, !accept, cores)) break;
    batch.layout = layout;
    batch.reason = &bucket == &first ? decision.reason : due(bucket.state(), options_.policy, queue_.draining()).reason;
    batch.rows = 0;
    make_room(batch.requests, std::min(bucket.size(), static_cast<size_t>(most)));
    // First, so that a drain never finds the batch neither in the queue nor running.
    OpenCount::Hold open(open_);
    queue_.take(bucket, most, now, batch.requests, dropped);
    if (batch.requests.empty()) continue;  // all of them had ended
    for (const RequestRef& request : batch.requests) batch.rows += request->rows;
    batch.slot = begin_run_locked(*batch.layout, batch.rows, now, cores, std::move(open));
    taken = true;
  }
  if (!taken && cores.cores > 0) cores_->end(cores, 0, now);  // all had ended for which there were any
  if (cores_matter_locked()) tidy_cores_locked(taken, ready && queue_.size() > 0, now);
  for (const RequestRef& request : batch.requests) leave_place(*request);
  leave_locked(dropped, batch.requests.size());
  promote_locked(dropped);
  batch.handover = hand_over_locked(taken || !dropped.empty());
  return taken;
}

bool Scheduler::take(Batch& batch, RequestList& dropped, Accept accept, Nanos* until) noexcept {
  MutexLock lock(mutex_);
  Nanos later = kNever;
  return take_locked(batch, dropped, clock_.now(), until ? until : &later, &accept);
}

void Scheduler::let_others_sleep() noexcept {
  MutexLock lock(mutex_);
  idle_ = std::max(0, options_.max_concurrent - running_ - 1);
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
      seen = word_.load(std::memory_order_acquire);  // first: whoever has cores for it rings without the lock
      taken = take_locked(batch, dropped, clock_.now(), &until, nullptr);
      if (taken || !dropped.empty()) {
        claimed = claim_worker_locked();  // there may be a batch for a colleague, too
      } else if (stopped_) {
        return false;
      } else {
        ++idle_;
        alarm_ = std::min(alarm_, until);
      }
    }
    wake(claimed);
    if (taken || !dropped.empty()) return true;
    slept = true;
    futex_wait(word_, seen, steady_ ? until : kNever);
  }
}

inline void Scheduler::finish_run(Slot& slot, bool is_worker) noexcept {
  if (foreign()) return;
  bool claimed = false;
  {
    MutexLock lock(mutex_);
    --running_;
    until_sum_ -= slot.until_;
    if (slot.cores_.cores > 0) {
      const Nanos now = clock_.now();
      cores_->end(slot.cores_, now - slot.started_, now);
    }
    if (const Bucket* only = may_wait_locked() ? queue_.only() : nullptr) {
      const RowLayout& layout = *only->first()->layout;
      layout.pace.could_go(clock_.now(), only->rows(), most_of(layout), layout.cost);
    }
    if (!is_worker) {
      claimed = claim_worker_locked();
      if (cores_matter_locked()) {
        if (claimed) {
          cores_->will_come(predictor_.threads(), clock_.now());  // before another batcher has them
        } else {
          cores_->give_back();
        }
      }
    }
  }
  wake(claimed);
}

OpenCount::Hold Slot::release(bool is_worker) noexcept {
  if (Scheduler* scheduler = std::exchange(scheduler_, nullptr)) scheduler->finish_run(*this, is_worker);
  return std::move(open_);
}

void Slot::give_cores_back() noexcept {
  if (scheduler_ && cores_.cores > 0) scheduler_->give_cores_back(*this);
}

void Scheduler::give_cores_back(Slot& slot) noexcept {
  if (foreign()) return;
  MutexLock lock(mutex_);
  const Nanos now = clock_.now();
  cores_->end(slot.cores_, now - slot.started_, now);
  cores_->give_back();
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

void Scheduler::forget_pace(const RowLayout& layout) noexcept {
  MutexLock lock(mutex_);
  layout.pace.forget();
  pace_ = {};
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
          oldest == kNever ? 0 : std::max<Nanos>(0, clock_.now() - oldest), pace_};
}

CoreFigures Scheduler::core_figures() const {
  MutexLock lock(mutex_);
  return cores_ ? cores_->figures(clock_.now()) : CoreFigures();
}

}  // namespace inferkit
