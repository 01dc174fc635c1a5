// Since when the batches that run have been running: how a hung model is noticed.
#pragma once
#include <algorithm>
#include <array>
#include <atomic>

#include "platform/clock.h"

namespace inferkit {

/// Thread-safe and lock-free. Up to kPlaces runs at once are watched; more run unwatched. Relaxed: it orders nothing.
class ActiveRuns {
 public:
  /// One run, from `now` to its destruction.
  class Scope {
   public:
    Scope(ActiveRuns& runs, Nanos now) : place_(runs.take(now)) {}
    ~Scope() {
      if (place_) place_->store(kNever, std::memory_order_relaxed);
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    std::atomic<Nanos>* const place_;
  };

  /// When the oldest of them began; kNever where nothing runs.
  Nanos oldest() const {
    Nanos oldest = kNever;
    for (const Place& place : places_) oldest = std::min(oldest, place.since.load(std::memory_order_relaxed));
    return oldest;
  }

 private:
  static constexpr size_t kPlaces = 32;
  struct alignas(64) Place {
    std::atomic<Nanos> since{kNever};
  };

  std::atomic<Nanos>* take(Nanos now) {
    for (Place& place : places_) {
      Nanos free = kNever;
      if (place.since.load(std::memory_order_relaxed) == kNever &&
          place.since.compare_exchange_strong(free, now, std::memory_order_relaxed)) {
        return &place.since;
      }
    }
    return nullptr;
  }

  std::array<Place, kPlaces> places_;
};

}  // namespace inferkit
