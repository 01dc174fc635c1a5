// The batches that run now: since when, and for whom.
#pragma once
#include <algorithm>
#include <atomic>
#include <span>
#include <vector>

#include "batching/request.h"
#include "platform/clock.h"
#include "platform/mutex.h"

namespace inferkit {

/// Thread-safe. As many runs at once as it has places are watched; more run unwatched.
class ActiveRuns {
  struct Place;

 public:
  explicit ActiveRuns(size_t places) : places_(places) {}

  /// One run, from `now` to its destruction, for `requests`, which stay where they are until then; for none where the
  /// caller runs its own.
  class Scope {
   public:
    Scope(ActiveRuns& runs, Nanos now, std::span<const RequestRef> requests = {}) : place_(runs.take(now)) {
      if (place_ && !requests.empty()) place_->set(requests);
      for_batch_ = !requests.empty();
    }
    ~Scope() {
      if (!place_) return;
      if (for_batch_) place_->set({});
      place_->since.store(kNever, std::memory_order_release);  // the next to take it finds it empty
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Place* const place_;
    bool for_batch_ = false;
  };

  /// When the oldest of them began; kNever where nothing runs. Relaxed: a figure.
  Nanos oldest() const {
    Nanos oldest = kNever;
    for (const Place& place : places_) oldest = std::min(oldest, place.since.load(std::memory_order_relaxed));
    return oldest;
  }

  /// Calls `visit` for each request that a run is for. A run that ends meanwhile waits for that.
  template <class Visit>
  void for_each_request(Visit&& visit) {
    for (Place& place : places_) {
      MutexLock lock(place.mutex);
      for (const RequestRef& request : place.requests) visit(*request);
    }
  }

 private:
  struct alignas(64) Place {
    void set(std::span<const RequestRef> of) {
      MutexLock lock(mutex);
      requests = of;
    }

    std::atomic<Nanos> since{kNever};
    Mutex mutex;  // guards requests: whoever ends them from outside against the end of their run
    std::span<const RequestRef> requests GUARDED_BY(mutex);
  };

  Place* take(Nanos now) {
    for (Place& place : places_) {
      Nanos free = kNever;
      if (place.since.load(std::memory_order_relaxed) == kNever &&
          place.since.compare_exchange_strong(free, now, std::memory_order_acquire, std::memory_order_relaxed)) {
        return &place;
      }
    }
    return nullptr;
  }

  std::vector<Place> places_;
};

}  // namespace inferkit
