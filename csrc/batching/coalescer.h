// Equal requests that are under way at the same time: one of them is computed, the others get its answer.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>

#include "batching/content.h"
#include "batching/intrusive_ptr.h"
#include "batching/line.h"
#include "platform/clock.h"
#include "platform/mutex.h"

namespace inferkit {

/// Requests that wait for another one's answer. Shared by that one and by them; what is in it, its Coalescer's lock
/// guards.
struct Followers : RefCounted<Followers> {
  RequestList waiting;
  size_t count = 0;  // in the list
  size_t ended = 0;  // of those: cancelled or expired, and not taken out yet
};

/// What a request is known by where equal ones are computed once, or answers are kept.
struct ByContent {
  ByContent(uint64_t hash_, uint64_t generation_) : hash(hash_), generation(generation_) {}

  const uint64_t hash;
  const uint64_t generation;  // of the model that ran when the request came
  // The Coalescer's lock guards what follows.
  IntrusivePtr<Followers> followers{};  // its own, or those that it belongs to
  bool leads = false;                   // others may join it
};

/// One that is computed leads, those that wait for it follow. A follower has no inputs and no place in the queue; it
/// has a deadline of its own, and may be cancelled. It joins a leader that runs, or one that goes no later than it
/// would go itself: of the same client, with a turn and a deadline that are no later. Thread-safe. Calls nobody while
/// it holds its lock; what may be the last reference to a request is let go of without it.
class Coalescer {
 public:
  /// At most `most` followers in all, 0: any number.
  Coalescer(std::span<const PortSpec> ports, size_t most, Nanos ageing) : ports_(ports), most_(most), ageing_(ageing) {}

  /// Makes a request, which nobody else knows yet and which is kWaiting, a follower in the phase kQueued, if it is
  /// equal to one that it may join. `inputs` are its own.
  bool join(const RequestRef& request, const Buffer& inputs) noexcept;
  /// From now on others may join this request, which has its inputs; unless another one that it may join itself has
  /// come before: then it is true, as join() is, and the inputs are gone.
  bool join_or_lead(const RequestRef& request) noexcept;

  /// A leader has its answer, or all are to have its end: nobody joins it any more, and whoever waits for it is moved
  /// to `out`.
  void finish(Request& leader, RequestList& out) noexcept;
  /// A leader that did not run has been claimed: the one of its followers with the earliest deadline, of the same the
  /// one whose turn is first, leads in its place, with its inputs, and is to be queued. Null where all have ended.
  RequestRef pass_on(Request& leader) noexcept;
  /// A follower has been claimed; where many have, they are taken out.
  void ended(Request& follower) noexcept;
  /// Whether somebody waits for what a request that is claimed was to compute. Once it is false it stays so, as nobody
  /// joins one that is claimed.
  bool waited_for(const Request& leader) const noexcept;
  /// Moves out the followers whose deadline is not after `now`: for clocks that threads do not sleep by.
  void sweep(Nanos now, RequestList& due) noexcept;

 private:
  using Table = std::unordered_multimap<uint64_t, RequestRef>;
  bool join_locked(const RequestRef& request, const Buffer& inputs) noexcept REQUIRES(mutex_);
  bool may_join(const Request& request, const Request& leader) const noexcept;
  bool goes_before(const Request& one, const Request& other) const noexcept;
  Nanos turn(const Request& of) const noexcept;
  RequestRef forget_locked(Request& leader) noexcept REQUIRES(mutex_);
  template <class Which>
  void take_out_locked(Followers& of, RequestList& out, Which&& which) noexcept REQUIRES(mutex_);
  Content content(const Request& request, const Buffer& inputs) const noexcept;

  const std::span<const PortSpec> ports_;
  const size_t most_;
  const Nanos ageing_;
  mutable Mutex mutex_;                      // held for a look-up, and a comparison where hashes are the same
  Table leaders_ GUARDED_BY(mutex_);         // by their hashes
  size_t followers_ GUARDED_BY(mutex_) = 0;  // of all leaders
};

}  // namespace inferkit
