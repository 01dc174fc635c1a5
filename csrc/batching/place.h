// A place in the bound of a queue.
#pragma once
#include <utility>

namespace inferkit {

class Scheduler;

/// Held by a request from its admission until it has left the queue, or by nobody. Whoever drops it gives it back; must
/// not be dropped under the scheduler's lock, which its owner may take it with leave().
class Place {
 public:
  Place() = default;
  explicit Place(Scheduler& scheduler) : scheduler_(&scheduler) {}
  Place(Place&& other) noexcept : scheduler_(std::exchange(other.scheduler_, nullptr)) {}
  Place& operator=(Place&& other) noexcept {
    Place before(std::move(*this));
    scheduler_ = std::exchange(other.scheduler_, nullptr);
    return *this;
  }
  ~Place();

  explicit operator bool() const { return scheduler_ != nullptr; }
  /// For the scheduler, which counts it back itself.
  void leave() { scheduler_ = nullptr; }

 private:
  Scheduler* scheduler_ = nullptr;
};

}  // namespace inferkit
