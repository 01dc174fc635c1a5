#include "batching/queue.h"

#include <algorithm>
#include <optional>

#include "batching/cut.h"

namespace inferkit {

BucketState Bucket::state() const {
  BucketState out{rows(), oldest(), earliest_deadline(), first()->turn, first()->order, headroom};
  out.most = first()->layout->most_rows;
  out.pays = first()->layout->pace.pays();
  out.delay = delay;
  return out;
}

Queue::~Queue() {
  RequestList left;
  clear(left);
}

void Queue::unfile(Bucket& bucket) noexcept {
  if (bucket.filed == Bucket::Filed::kReady) ready_.remove(bucket);
  if (bucket.filed == Bucket::Filed::kLater) later_.remove(bucket);
  bucket.filed = Bucket::Filed::kNowhere;
}

/// What nobody has run yet may take any time, so it goes at once. A part of the time that a request was given is kept
/// for a worker that wakes up late: to wait until the last moment wins nothing.
Nanos Queue::headroom(const Bucket& bucket) const {
  constexpr Nanos kMostMargin = 25'000'000;
  const Nanos deadline = bucket.earliest_deadline();
  if (!predictor_ || deadline == kNever) return slack_;
  const Nanos margin = std::clamp<Nanos>((deadline - bucket.oldest()) / 4, 0, kMostMargin);
  const Forecast run = predictor_->forecast(*bucket.first()->layout, next_rows(bucket));
  return run.typical ? slack_ + margin + run.high + run.high / 4 : deadline;
}

/// Puts a bucket, after a change, where it belongs: the heaps' keys are as of now.
void Queue::file(Bucket& bucket) noexcept {
  const Request* first = bucket.first();
  if (!first) {
    unfile(bucket);
    (bucket.previous ? bucket.previous->next : buckets_) = bucket.next;
    if (bucket.next) bucket.next->previous = bucket.previous;
    bucket.next = bucket.previous = nullptr;
    bucket.queue = nullptr;
    return;
  }
  Nanos at = 0;
  bucket.delay = first->layout->pace.delay();
  if ((bucket.delay < 0 ? policy_.max_delay : bucket.delay) > 0) {
    bucket.headroom = headroom(bucket);
    at = due(bucket.state(), policy_, draining_).at;
  }
  const auto where = at <= 0 ? Bucket::Filed::kReady : Bucket::Filed::kLater;
  if (bucket.filed == where) {
    if (where == Bucket::Filed::kReady ? bucket.turn == first->turn && bucket.order == first->order
                                       : bucket.due == at) {
      return;
    }
  }
  unfile(bucket);
  bucket.turn = first->turn;
  bucket.order = first->order;
  bucket.due = at;
  bucket.filed = where;
  if (where == Bucket::Filed::kReady) {
    ready_.push(bucket);
  } else {
    later_.push(bucket);
  }
}

void Queue::push(RequestRef ref) noexcept {
  Request& request = *ref;
  Bucket& bucket = request.layout->bucket;
  if (!bucket.queue) {
    bucket.queue = this;
    bucket.next = buckets_;
    if (buckets_) buckets_->previous = &bucket;
    buckets_ = &bucket;
  }
  request.order = ++order_;
  request.turn = turn_of(request);
  earliest_deadline_ = std::min(earliest_deadline_, request.deadline);
  rows_ += request.rows;
  ++size_;
  bucket.push(std::move(ref));
  if (request.member) fair_.join(*request.member, bucket);
  file(bucket);
}

RequestRef Queue::unlink(Bucket& bucket, Request& request) noexcept {
  if (request.member) fair_.leave(*request.member);
  rows_ -= request.rows;
  --size_;
  return bucket.unlink(request);
}

RequestRef Queue::remove(Request& request) noexcept {
  Bucket& bucket = request.layout->bucket;
  if (bucket.queue != this) return nullptr;
  RequestRef ref = bucket.remove(request);
  if (ref) {
    if (request.member) fair_.leave(*request.member);
    rows_ -= request.rows;
    --size_;
    file(bucket);
  }
  return ref;
}

Nanos Queue::turn_of(const Request& request) const {
  return turn_of(request.times.enqueued.load(std::memory_order_relaxed), request.deadline, request.priority);
}

int64_t Queue::next_rows(const Bucket& bucket) const {
  const Request& first = *bucket.first();
  if (policy_.alone) return first.rows;
  return first.layout->pace.next(std::min({bucket.rows(), policy_.max_rows, first.layout->most_rows}), first.rows);
}

void Queue::take(Bucket& bucket, int64_t max_rows, Nanos now, std::vector<RequestRef>& batch,
                 RequestList& dropped) noexcept {
  if (policy_.alone && !bucket.empty()) max_rows = bucket.first()->rows;
  const size_t most = policy_.alone ? std::min(size_t{1}, batch.capacity()) : batch.capacity();
  std::optional<Cut> cut;
  LayoutRef layout;  // outlives its requests here
  const auto cost = [&](int64_t rows) { return predictor_->forecast(*layout, rows); };
  if (predictor_ && bucket.earliest_deadline() != kNever && !bucket.empty()) {
    layout = bucket.first()->layout;
    // After a pause the figures are a guess: this batch is the one that checks them.
    if (!predictor_->stale(*layout, now)) cut.emplace(bucket, max_rows, now, cost);
  }
  int64_t room = cut ? cut->max_rows() : max_rows;
  // A batch that fairness begins with another request than the turns do holds at least that one, whatever the cut.
  const bool is_fair = bucket.strands != nullptr;
  FairOrder order(bucket);
  while (Request* request = is_fair ? order.next() : bucket.first()) {
    const bool late = request->deadline <= now || (cut && cut->leaves_out(*request));
    if (!late && request->phase() == Phase::kQueued) {
      if (is_fair && batch.empty()) room = std::max(room, request->rows);
      // Nobody whose turn is later overtakes what is next, either.
      if (request->rows > room || batch.size() == most) break;
      if (request->advance(Phase::kQueued, Phase::kRunning)) {
        room -= request->rows;
        if (request->member) fair_.serve(*request->member);
        batch.push_back(unlink(bucket, *request));
        continue;
      }
    }
    dropped.push(unlink(bucket, *request));
  }
  file(bucket);
}

Bucket& Queue::fairest(Bucket& ready) const noexcept {
  if (fair_.empty() || ready.members != ready.size()) return ready;
  Bucket* const found = fair_.fairest(ready.first()->priority);
  return found && found->members == found->size() ? *found : ready;
}

double Queue::part_before(const Flow& flow, Nanos turn) const {
  if (rows_ == 0) return 0;
  const double before = double(rows_ - fair_.rows()) + fair_.rows_before(flow, turn);
  return std::min(1.0, before / double(rows_));
}

void Queue::sweep(Nanos now, RequestList& expired) noexcept {
  if (earliest_deadline_ > now) return;
  earliest_deadline_ = kNever;
  for (Bucket *bucket = buckets_, *following; bucket; bucket = following) {
    following = bucket->next;
    while (Request* request = bucket->first_due(now)) expired.push(unlink(*bucket, *request));
    earliest_deadline_ = std::min(earliest_deadline_, bucket->earliest_deadline());
    file(*bucket);
  }
}

void Queue::clear(RequestList& out) noexcept {
  while (Bucket* bucket = buckets_) {
    while (Request* request = bucket->first()) out.push(unlink(*bucket, *request));
    file(*bucket);
  }
  earliest_deadline_ = kNever;
}

Candidates Queue::candidates(Nanos now, bool may_wait) noexcept {
  for (Bucket* bucket = later_.top(); bucket && bucket->due <= now; bucket = later_.top()) {
    unfile(*bucket);
    bucket->filed = Bucket::Filed::kReady;
    bucket->turn = bucket->first()->turn;
    bucket->order = bucket->first()->order;
    ready_.push(*bucket);
  }
  Candidates out;
  for (Bucket* bucket : {ready_.top(), later_.top()}) {
    if (!bucket) continue;
    out.states[out.count] = bucket->state();
    out.buckets[out.count++] = bucket;
  }
  if (may_wait && out.count == 1 && !buckets_->next) {
    const Pace& pace = buckets_->first()->layout->pace;
    BucketState& state = out.states[0];
    state.company = pace.until();
    state.expected = pace.expected();
    if (state.company > 0) state.headroom = headroom(*buckets_);
  }
  return out;
}

void Queue::drain() noexcept {
  draining_ = true;
  for (Bucket* bucket = buckets_; bucket; bucket = bucket->next) file(*bucket);
}

Nanos Queue::oldest() const {
  Nanos oldest = kNever;
  for (const Bucket* bucket = buckets_; bucket; bucket = bucket->next) oldest = std::min(oldest, bucket->oldest());
  return oldest;
}

}  // namespace inferkit
