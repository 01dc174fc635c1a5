// Whose turn it is among clients: start-time fair queueing, over the requests that a Queue holds.
#pragma once
#include <array>
#include <cstdint>
#include <memory>

#include "batching/intrusive_ptr.h"
#include "batching/pairing_heap.h"
#include "platform/clock.h"

namespace inferkit {

class Client;
using ClientRef = IntrusivePtr<Client>;
class Request;
struct Bucket;
struct Membership;
struct Strand;

inline constexpr int kMaxPriority = 100;

/// What one client has waiting at one level of priority. It belongs to the client; a queue's lock guards it.
struct Flow {
  Flow(double weight_, int priority_) : weight(weight_), priority(priority_) {}

  const double weight;
  const int priority;
  double tag = 0;             // the virtual time at which its next request starts
  int64_t rows = 0;           // that wait
  Strand* strands = nullptr;  // those that hold requests, through Strand::next_of_flow
  Flow* next = nullptr;       // of all that hold requests
  Flow* previous = nullptr;
};

struct MemberGoesFirst {
  bool operator()(const Membership& a, const Membership& b) const;
};

/// The requests of one flow that wait in one bucket, in the order of their turns.
struct Strand : RefCounted<Strand> {
  explicit Strand(Flow& flow_) : flow(flow_) {}

  bool empty() const { return !members.top(); }
  Request* first() const;

  Flow& flow;
  Bucket* bucket = nullptr;  // that it is in, while it holds requests
  int64_t rows = 0;
  PairingHeap<Membership, MemberGoesFirst> members;
  Strand *next = nullptr, *previous = nullptr;  // of its bucket's
  Strand *next_of_flow = nullptr, *previous_of_flow = nullptr;
  HeapLinks<Strand> heap;  // of a FairOrder
};
using StrandRef = IntrusivePtr<Strand>;

/// A request's part in the accounts of its client; only requests that have a client have one.
struct Membership {
  Membership(Request& request_, ClientRef client_, StrandRef strand_);
  ~Membership();
  Membership(const Membership&) = delete;
  Membership& operator=(const Membership&) = delete;

  /// Counts the place in the queue that the request has, until leave() or the end of its life. Not by two threads at
  /// a time: by who admits the request, then under the scheduler's lock.
  void hold() noexcept;
  void leave() noexcept;

  Request& request;
  const ClientRef client;
  const StrandRef strand;
  HeapLinks<Membership> heap;

 private:
  bool holds_ = false;
};

/// The accounts, of all levels: each is a server of its own. A flow's tag says when its next request starts in virtual
/// time: where the flow left off, or, where it had nothing waiting, the time that it is. What is served moves the
/// flow's tag on by its rows over the weight. Who has the smallest tag goes next. So whoever waits is served in
/// proportion to the weights, and who comes back from idleness starts with the others: with no credit, and no debt.
///
/// Not thread-safe, and never allocates: as the Queue that it belongs to.
class FairShare {
 public:
  void join(Membership& member, Bucket& bucket) noexcept;
  void leave(Membership& member) noexcept;
  /// Before it leaves: its rows are going to run.
  void serve(const Membership& member) noexcept;

  /// Whether nobody here has a client.
  bool empty() const { return !flows_; }
  /// Of the buckets that may go, the one from which fairness takes the next request of this level; null where none has
  /// such a request.
  Bucket* fairest(int priority) const;
  /// The rows that would be served before a request of this flow that came now and whose turn was `turn`.
  double rows_before(const Flow& flow, Nanos turn) const;
  /// All rows of requests that have a client.
  int64_t rows() const { return rows_; }

 private:
  struct Level {
    double start = 0;   // of what was served last: the virtual time
    double finish = 0;  // the latest of all that were served
    size_t flows = 0;
  };
  Level& level(int priority) { return levels_[static_cast<size_t>(priority + kMaxPriority)]; }
  const Level& level(int priority) const { return levels_[static_cast<size_t>(priority + kMaxPriority)]; }

  Flow* flows_ = nullptr;
  int64_t rows_ = 0;
  std::array<Level, 2 * kMaxPriority + 1> levels_{};
};

/// In which order a batch takes the requests of a bucket that may all have clients. The level whose turn it is goes
/// first, by turns; in it the client with the smallest tag; of that client the request with the earliest turn. Lives
/// for one batch, in which nothing else may serve or join; it links through the strands.
class FairOrder {
 public:
  explicit FairOrder(Bucket& bucket) : bucket_(bucket) {}
  ~FairOrder() { clear(); }
  FairOrder(const FairOrder&) = delete;
  FairOrder& operator=(const FairOrder&) = delete;

  /// Who goes next; null at the end. Before it is asked again, that request must have left the bucket.
  Request* next() noexcept;

 private:
  struct GoesFirst {
    bool operator()(const Strand& a, const Strand& b) const;
  };
  void clear() noexcept;

  static constexpr int kNone = kMaxPriority + 1;
  Bucket& bucket_;
  PairingHeap<Strand, GoesFirst> heap_;  // of `level_`
  int level_ = kNone;
  Strand* current_ = nullptr;  // whose request was given: in the heap again once that has left
};

}  // namespace inferkit
