// The requests that wait: by layout, then by their turns.
#pragma once
#include <array>
#include <span>
#include <vector>

#include "batching/bucket.h"
#include "batching/fair.h"
#include "batching/policy.h"
#include "batching/predictor.h"
#include "batching/request.h"

namespace inferkit {

/// The buckets among which the decision falls: decide() says of them what it would say of all.
struct Candidates {
  std::array<BucketState, 2> states;
  std::array<Bucket*, 2> buckets{};
  size_t count = 0;

  std::span<const BucketState> span() const { return {states.data(), count}; }
};

/// Not thread-safe: its owner's lock guards it, the links inside the requests and the buckets of their layouts, which
/// are in no other queue. Holds a reference to each request it holds. Nothing here allocates, or drops a last
/// reference: what leaves is moved to the caller, who lets go without the lock. However many layouts there are, what
/// happens for one request costs their logarithm.
class Queue {
 public:
  /// Without a predictor, what runs cost is unknown and no deadline is given up before it has passed.
  explicit Queue(PolicyOptions policy = {}, const Predictor* predictor = nullptr)
      : policy_(policy), predictor_(predictor) {}
  ~Queue();
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  /// `request` must be in no queue. Its turn is found here, from when it came.
  void push(RequestRef request) noexcept;
  /// Takes it out; null where it is not here.
  RequestRef remove(Request& request) noexcept;
  /// The rows that a batch of this bucket, which is not empty, would have by the policy.
  int64_t next_rows(const Bucket& bucket) const;
  /// Where some have clients, the bucket that fairness takes the next batch from, instead of this one: both may go.
  Bucket& fairest(Bucket& ready) const noexcept;
  /// Takes requests of one bucket in order, from kQueued to kRunning, until the next one would pass `max_rows` or
  /// `batch` would have to grow, or is better left for the next (see cut_batch). Those that have ended meanwhile, or
  /// that cannot be answered by their deadline, go to `dropped` and take no place.
  void take(Bucket& bucket, int64_t max_rows, Nanos now, std::vector<RequestRef>& batch, RequestList& dropped) noexcept;
  /// Moves out every request whose deadline is not after `now`. Cheap where none can be.
  void sweep(Nanos now, RequestList& expired) noexcept;
  /// Moves out all.
  void clear(RequestList& out) noexcept;

  /// What decide() needs to know at `now`; holds until the next change. `may_wait`: whoever takes the next batch is the
  /// only one who is free. Where nothing of another layout waits, that one may wait for company.
  Candidates candidates(Nanos now, bool may_wait = false) noexcept;
  /// From now on nobody waits for company.
  void drain() noexcept;
  bool draining() const { return draining_; }
  const PolicyOptions& policy() const { return policy_; }
  /// How long before its deadline a request must go, besides what its run takes.
  void set_slack(Nanos slack) { slack_ = slack; }
  /// When it is the turn of a request that came at `enqueued`.
  Nanos turn_of(Nanos enqueued, Nanos deadline, int priority) const {
    return inferkit::turn_of(enqueued, deadline, priority, policy_.ageing);
  }
  Nanos turn_of(const Request& request) const;

  /// Where some have clients, the part of all rows that goes before a request of this flow that comes now.
  double part_before(const Flow& flow, Nanos turn) const;
  bool is_fair() const { return !fair_.empty(); }

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  int64_t rows() const { return rows_; }
  /// The earliest time of arrival, kNever where it is empty. Looks at every bucket.
  Nanos oldest() const;
  /// The bucket that holds all there is; null where there are several, or none.
  const Bucket* only() const { return buckets_ && !buckets_->next ? buckets_ : nullptr; }
  /// Every bucket, through Bucket::next.
  const Bucket* buckets() const { return buckets_; }

 private:
  struct GoesFirst {
    bool operator()(const Bucket& a, const Bucket& b) const {
      return a.turn != b.turn ? a.turn < b.turn : a.order < b.order;
    }
  };
  struct IsDueFirst {
    bool operator()(const Bucket& a, const Bucket& b) const { return a.due < b.due; }
  };

  RequestRef unlink(Bucket& bucket, Request& request) noexcept;
  Nanos headroom(const Bucket& bucket) const;
  void file(Bucket& bucket) noexcept;
  void unfile(Bucket& bucket) noexcept;

  const PolicyOptions policy_;
  const Predictor* const predictor_;
  FairShare fair_;
  bool draining_ = false;
  Nanos slack_ = 0;
  Bucket* buckets_ = nullptr;              // those that hold requests
  PairingHeap<Bucket, GoesFirst> ready_;   // of them, those that may go
  PairingHeap<Bucket, IsDueFirst> later_;  // and those that wait for company
  Nanos earliest_deadline_ = kNever;       // not later than that of any request in it
  size_t size_ = 0;
  int64_t rows_ = 0;
  uint64_t order_ = 0;
};

}  // namespace inferkit
