#include "batching/queue.h"

#include <algorithm>

namespace inferkit {
namespace {
constexpr size_t kSpareBuckets = 16;
}

Queue::~Queue() {
  std::vector<RequestRef> left;
  clear(left);
}

Queue::Bucket& Queue::bucket_for(const LayoutRef& layout) {
  for (auto& bucket : buckets_) {
    if (bucket->layout == layout) return *bucket;
  }
  // A spare one of the same layout has its levels already.
  auto spare = std::find_if(spare_.begin(), spare_.end(), [&](const auto& b) { return b->layout == layout; });
  if (spare == spare_.end() && spare_.size() == kSpareBuckets) spare = spare_.begin();
  if (spare == spare_.end()) {
    buckets_.push_back(std::make_unique<Bucket>());
    buckets_.back()->queue = this;
  } else {
    buckets_.push_back(std::move(*spare));
    spare_.erase(spare);
  }
  Bucket& bucket = *buckets_.back();
  bucket.layout = layout;
  bucket.earliest_deadline = kNever;
  return bucket;
}

Queue::Level& Queue::level_for(Bucket& bucket, int priority) {
  auto at = bucket.levels.begin();
  while (at != bucket.levels.end() && (*at)->priority > priority) ++at;
  if (at == bucket.levels.end() || (*at)->priority != priority) {
    at = bucket.levels.insert(at, std::make_unique<Level>(Level{&bucket, priority}));
  }
  return **at;
}

Queue::Level* Queue::top(const Bucket& bucket) {
  for (const auto& level : bucket.levels) {
    if (level->first) return level.get();
  }
  return nullptr;
}

void Queue::push(RequestRef ref) {
  Request& request = *ref.detach();  // the links own the reference
  Bucket& bucket = bucket_for(request.layout);
  Level& level = level_for(bucket, request.priority);
  request.level_ = &level;
  request.order_ = ++order_;
  request.next_ = nullptr;
  request.previous_ = level.last;
  (level.last ? level.last->next_ : level.first) = &request;
  level.last = &request;
  bucket.rows += request.rows;
  bucket.earliest_deadline = std::min(bucket.earliest_deadline, request.deadline);
  ++bucket.count;
  rows_ += request.rows;
  ++size_;
}

RequestRef Queue::unlink(Request& request) {
  Level& level = *static_cast<Level*>(request.level_);
  (request.previous_ ? request.previous_->next_ : level.first) = request.next_;
  (request.next_ ? request.next_->previous_ : level.last) = request.previous_;
  request.level_ = nullptr;
  request.next_ = request.previous_ = nullptr;
  level.bucket->rows -= request.rows;
  --level.bucket->count;
  rows_ -= request.rows;
  --size_;
  return RequestRef::adopt(&request);
}

void Queue::retire_empty() {
  for (size_t i = buckets_.size(); i-- > 0;) {
    if (buckets_[i]->count) continue;
    if (spare_.size() < kSpareBuckets) spare_.push_back(std::move(buckets_[i]));
    buckets_.erase(buckets_.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

RequestRef Queue::remove(Request& request) {
  const Level* level = static_cast<const Level*>(request.level_);
  if (!level || level->bucket->queue != this) return nullptr;
  RequestRef ref = unlink(request);
  retire_empty();
  return ref;
}

void Queue::take(size_t index, int64_t max_rows, Nanos now, std::vector<RequestRef>& batch,
                 std::vector<RequestRef>& dropped) {
  Bucket& bucket = *buckets_[index];
  int64_t room = max_rows;
  for (const auto& level : bucket.levels) {
    bool full = false;
    while (Request* request = level->first) {
      if (request->deadline > now && !request->done()) {
        full = request->rows > room;
        if (full) break;
        if (request->advance(Phase::kQueued, Phase::kRunning)) {
          room -= request->rows;
          batch.push_back(unlink(*request));
          continue;
        }
      }
      dropped.push_back(unlink(*request));
    }
    if (full) break;  // a lower priority does not overtake what is next
  }
  retire_empty();
}

void Queue::sweep(Nanos now, std::vector<RequestRef>& expired) {
  for (auto& bucket : buckets_) {
    if (bucket->earliest_deadline > now) continue;
    Nanos earliest = kNever;
    for (const auto& level : bucket->levels) {
      for (Request *request = level->first, *next; request; request = next) {
        next = request->next_;
        if (request->deadline <= now) {
          expired.push_back(unlink(*request));
        } else {
          earliest = std::min(earliest, request->deadline);
        }
      }
    }
    bucket->earliest_deadline = earliest;
  }
  retire_empty();
}

void Queue::clear(std::vector<RequestRef>& out) {
  for (auto& bucket : buckets_) {
    for (const auto& level : bucket->levels) {
      while (level->first) out.push_back(unlink(*level->first));
    }
  }
  retire_empty();
}

Request* Queue::front() const {
  Request* best = nullptr;
  for (const auto& bucket : buckets_) {
    Request* head = top(*bucket)->first;
    if (!best || head->priority > best->priority || (head->priority == best->priority && head->order_ < best->order_)) {
      best = head;
    }
  }
  return best;
}

Nanos Queue::oldest() const {
  Nanos oldest = kNever;
  for (const BucketState& state : states()) oldest = std::min(oldest, state.oldest);
  return oldest;
}

std::span<const BucketState> Queue::states() const {
  states_.clear();
  for (const auto& bucket : buckets_) {
    const Level* first = top(*bucket);
    BucketState state{bucket->rows, kNever, bucket->earliest_deadline, first->priority, first->first->order_};
    for (const auto& level : bucket->levels) {
      if (level->first)
        state.oldest = std::min(state.oldest, level->first->times.enqueued.load(std::memory_order_relaxed));
    }
    states_.push_back(state);
  }
  return states_;
}

}  // namespace inferkit
