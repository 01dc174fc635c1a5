// The requests that wait: by layout, then priority, then first in first out.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "batching/policy.h"
#include "batching/request.h"

namespace inferkit {

/// Not thread-safe: its owner's lock guards it and the links inside the requests. Holds a reference to each request it
/// holds. Nothing here drops a last reference: what leaves is moved to the caller, who lets go without the lock.
class Queue {
 public:
  ~Queue();

  /// `request` must be in no queue.
  void push(RequestRef request);
  /// Takes it out in constant time; null where it is not here.
  RequestRef remove(Request& request);
  /// Takes requests of one bucket in order, from kQueued to kRunning, until the next one would pass `max_rows`.
  /// Those that have ended meanwhile, or whose deadline is not after `now`, go to `dropped` and take no place.
  void take(size_t bucket, int64_t max_rows, Nanos now, std::vector<RequestRef>& batch,
            std::vector<RequestRef>& dropped);
  /// Moves out every request whose deadline is not after `now`. Cheap where none can be.
  void sweep(Nanos now, std::vector<RequestRef>& expired);
  /// Moves out all.
  void clear(std::vector<RequestRef>& out);
  /// The request that would leave first of all, or null.
  Request* front() const;

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  int64_t rows() const { return rows_; }
  /// kNever where it is empty.
  Nanos oldest() const;
  /// One for each bucket; indices hold until the next change.
  std::span<const BucketState> states() const;
  const LayoutRef& layout(size_t bucket) const { return buckets_[bucket]->layout; }

 private:
  struct Bucket;
  // Requests of one bucket and one priority. Links lead from the first in to the last.
  struct Level {
    Bucket* bucket;
    int priority;
    Request* first = nullptr;
    Request* last = nullptr;
  };
  struct Bucket {
    const Queue* queue;
    LayoutRef layout;
    std::vector<std::unique_ptr<Level>> levels;  // highest priority first; kept while the bucket lives
    int64_t rows = 0;
    size_t count = 0;
    Nanos earliest_deadline = kNever;  // a lower bound: not raised when a request leaves
  };

  Level& level_for(Bucket& bucket, int priority);
  Bucket& bucket_for(const LayoutRef& layout);
  RequestRef unlink(Request& request);
  void retire_empty();
  static Level* top(const Bucket& bucket);

  std::vector<std::unique_ptr<Bucket>> buckets_;  // only those that hold requests
  std::vector<std::unique_ptr<Bucket>> spare_;    // emptied, kept for the next layout
  mutable std::vector<BucketState> states_;
  size_t size_ = 0;
  int64_t rows_ = 0;
  uint64_t order_ = 0;
};

}  // namespace inferkit
