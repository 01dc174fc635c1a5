// Where the requests of one event loop go when they end, and what wakes the loop.
#pragma once
#include <vector>

#include "batching/intrusive_ptr.h"
#include "platform/mutex.h"
#include "platform/notifier.h"

namespace inferkit {

class Request;

/// Owned by its loop and by the requests that report to it. Finishers push from any thread, then notify once a batch;
/// the loop polls fd() and takes all there is.
class CompletionList : public RefCounted<CompletionList> {
 public:
  CompletionList();
  ~CompletionList();

  int fd() const { return notifier_.fd(); }
  /// A request that has ended, once. Never allocates.
  void push(IntrusivePtr<Request> request) noexcept;
  void notify() { notifier_.notify(); }
  /// Any thread: a hint that the loop has been woken and has not come yet.
  bool has_news() const { return notifier_.pending(); }

  /// The loop's thread, after a wake-up through fd() and before take().
  void acknowledge() { notifier_.drain(); }
  /// The loop's thread. Appends to `out` what has ended since the last call. Where there is no memory for that it
  /// throws std::bad_alloc, all stays here, and fd() becomes readable again.
  void take(std::vector<IntrusivePtr<Request>>& out);

 private:
  Notifier notifier_;
  // Linked through the requests, which it owns a reference to.
  struct Ended {
    Request* first = nullptr;
    Request* last = nullptr;
    size_t count = 0;
  };
  static IntrusivePtr<Request> pop(Ended& ended) noexcept;

  Mutex mutex_;  // guards ended_; held for a push or a swap
  Ended ended_ GUARDED_BY(mutex_);
};

}  // namespace inferkit
