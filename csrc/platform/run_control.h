// Long work that can be told to stop: a run, or a model's loading, looks now and then whether it is to go on.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>

#include "base/error.h"
#include "platform/clock.h"

namespace inferkit {

/// The work was told to stop: by a signal, or since its time is over.
class Stopped : public Error {
 public:
  Stopped() : Error(ErrorCode::kInference, "the run was stopped") {}
};

/// Who decides. The thread that does the work asks it; the threads that help only learn what it was told. Once stopped
/// it stays so.
class RunControl {
 public:
  virtual ~RunControl() = default;

  /// What the calling thread's work is under; null where nobody wants to stop it.
  static RunControl* current() { return current_; }
  /// Makes one the current one of this thread, for its lifetime.
  class Scope {
   public:
    explicit Scope(RunControl* control) : before_(current_) { current_ = control; }
    ~Scope() { current_ = before_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    RunControl* const before_;
  };

  /// False where the work is to stop. Nanoseconds: to be asked as often as every 10 us. What was computed since it was
  /// last true must not be used.
  bool go_on() { return current_ == this ? ask() : !stopped_.load(std::memory_order_relaxed); }
  /// The work that comes is estimated to take so long.
  void expect(Nanos nanos) {
    slices_ = nanos < 2 * kSlice ? 1 : static_cast<int>(std::min<Nanos>(nanos / kSlice, 1024));
  }
  /// Into how many parts each piece of that work is to be cut at least, so that it can be stopped between them.
  int slices() const { return slices_; }

  /// Throws Stopped where the calling thread's work is to stop.
  static void check() {
    if (current_ && !current_->go_on()) throw Stopped();
  }

 protected:
  /// Whether to stop; on the working thread, at most every kEvery.
  virtual bool look(Nanos now) = 0;

 private:
  static constexpr Nanos kEvery = 50'000'000, kSlice = 5'000'000;
  bool ask();

  std::atomic<bool> stopped_{false};  // relaxed: it publishes nothing else
  Nanos next_ = 0;                    // of the working thread, as is the next
  int slices_ = 1;
  static inline constinit thread_local RunControl* current_ = nullptr;
};

/// body(i) for every i in [0, count), in order; some are left out where the calling thread's work is to stop.
template <class F>
void for_parts(int64_t count, F&& body) {
  RunControl* const control = RunControl::current();
  for (int64_t i = 0; i < count && (!control || control->go_on()); ++i) body(i);
}

/// Stops when its time is over, or when the control around it stops.
class Deadline final : public RunControl {
 public:
  explicit Deadline(Nanos until) : until_(until), outer_(current()) {}
  /// Whether it was its own time that was over.
  bool passed() const { return passed_; }

 protected:
  bool look(Nanos now) override;

 private:
  const Nanos until_;
  RunControl* const outer_;
  bool passed_ = false;
};

}  // namespace inferkit
