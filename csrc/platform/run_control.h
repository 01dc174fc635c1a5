// Long work that can be told to stop: a run, or a model's loading, looks now and then whether it is to go on.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>

#include "base/error.h"
#include "platform/clock.h"
#include "platform/core_ticks.h"

namespace inferkit {

/// The work was told to stop: by a signal, or since its time is over.
class Stopped : public Error {
 public:
  Stopped();
  Stopped(const Stopped&) noexcept;
  ~Stopped() override;
};

/// Who decides. The thread that does the work asks it; the threads that help are under a Follower of it. Once stopped
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
  bool go_on() { return current_ == this ? ask() : !stopped(); }
  /// The work that comes is estimated to take so long.
  void expect(Nanos nanos) {
    slices_ = nanos < 2 * kSlice ? 1 : static_cast<int>(std::min<Nanos>(nanos / kSlice, 1024));
  }
  /// Whether it was told so, by whatever thread: without a look at the clock.
  bool stopped() const { return stopped_.load(std::memory_order_relaxed); }
  /// Into how many parts each piece of that work is to be cut at least, so that it can be stopped between them.
  int slices() const { return slices_; }

  /// Whether the calling thread's work is to go on.
  static bool goes_on() { return !current_ || current_->go_on(); }
  /// Throws Stopped where it is not.
  static void check() {
    if (!goes_on()) throw Stopped();
  }

 protected:
  enum class First : uint8_t { kAtOnce, kLater };  // the first look: when it is first asked, or kEvery after that
  explicit RunControl(First first = First::kAtOnce) {
    if (first == First::kAtOnce) return;
    next_ = kNotAsked;
    ticks_ = core_ticks();
  }
  /// Whether to stop; on the working thread, at most every kEvery.
  virtual bool look(Nanos now) = 0;

 private:
  static constexpr Nanos kEvery = 50'000'000, kSlice = 5'000'000, kNotAsked = -1;
  // Who asks again before so many ticks gets an answer without a look at the clock, which takes as long as a small
  // kernel: some 50 us on x86, some ms at most on ARM.
  static constexpr uint64_t kTicksUnread = 1 << 17;
  bool ask();

  std::atomic<bool> stopped_{false};  // relaxed: it publishes nothing else
  Nanos next_ = 0;                    // of the working thread, as are those that follow
  uint64_t ticks_ = 0;                // when it last looked at the clock
  int slices_ = 1;
  static inline constinit thread_local RunControl* current_ = nullptr;
};

/// What a thread that helps is under: its work is to stop where that of the thread that it helps was told to.
class Follower final : public RunControl {
 public:
  explicit Follower(const RunControl& leader) : RunControl(First::kLater), leader_(leader) {}

 protected:
  bool look(Nanos) override { return leader_.stopped(); }

 private:
  const RunControl& leader_;
};

/// For loops that know no better places to look: told of the work that is done, it looks every millisecond or so.
/// Where nobody wants to stop the work it never does.
class WorkMeter {
 public:
  static constexpr int64_t kBlockNanos = 1 << 16;

  /// Before work of about `nanos`: false where it is to be left.
  bool go_on(int64_t nanos) {
    if (!control_ || (left_ -= nanos) > 0) return true;
    const bool on = control_->go_on();
    left_ = on ? kNanos : 0;  // once it is to be left, all that follow hear it
    return on;
  }
  /// The same; throws Stopped.
  void spend(int64_t nanos) {
    if (!go_on(nanos)) [[unlikely]] {
      throw Stopped();
    }
  }
  /// Whether anybody may stop it.
  explicit operator bool() const { return control_ != nullptr; }

 private:
  static constexpr int64_t kNanos = 1'000'000;
  RunControl* const control_ = RunControl::current();
  int64_t left_ = kNanos;
};

/// f(first, last) over [begin, end), in order, in blocks of about `nanos` an index between two of which the work may be
/// left. False where it was.
template <class F>
bool for_blocks(WorkMeter& meter, int64_t begin, int64_t end, int64_t nanos, F&& f) {
  int64_t block = end - begin;
  if (meter && block * nanos > WorkMeter::kBlockNanos) block = std::max<int64_t>(1, WorkMeter::kBlockNanos / nanos);
  for (int64_t first = begin; first < end; first += block) {
    const int64_t last = std::min(end, first + block);
    if (!meter.go_on((last - first) * nanos)) return false;
    f(first, last);
  }
  return true;
}

/// f(line, first, last) over `lines` times [0, count): whole lines where they are short.
template <class F>
bool for_line_blocks(WorkMeter& meter, int64_t lines, int64_t count, int64_t nanos, F&& f) {
  if (!meter || count * nanos <= WorkMeter::kBlockNanos) {
    return for_blocks(meter, 0, lines, std::max<int64_t>(1, count * nanos), [&](int64_t first, int64_t last) {
      for (int64_t line = first; line < last; ++line) f(line, int64_t{0}, count);
    });
  }
  bool on = true;
  for (int64_t line = 0; line < lines && on; ++line) {
    on = for_blocks(meter, 0, count, nanos, [&](int64_t first, int64_t last) { f(line, first, last); });
  }
  return on;
}

/// The same over [0, count) on its own, about a nanosecond an index.
template <class F>
void in_blocks(int64_t count, F&& f) {
  WorkMeter meter;
  for_blocks(meter, 0, count, 1, f);
}

/// std::memcpy, which may be left.
inline void copy_in_blocks(void* to, const void* from, size_t bytes) {
  constexpr int64_t kUnit = 16;
  in_blocks((static_cast<int64_t>(bytes) + kUnit - 1) / kUnit, [&](int64_t first, int64_t last) {
    const auto begin = static_cast<size_t>(first * kUnit), end = std::min(bytes, static_cast<size_t>(last * kUnit));
    std::memcpy(static_cast<char*>(to) + begin, static_cast<const char*>(from) + begin, end - begin);
  });
}

/// std::fill_n, which may be left.
template <class T>
void fill_in_blocks(T* to, int64_t count, T value) {
  in_blocks(count, [&](int64_t first, int64_t last) { std::fill(to + first, to + last, value); });
}

/// body(i) for every i in [0, count), in order; some are left out where the calling thread's work is to stop.
template <class F>
void for_parts(int64_t count, F&& body) {
  for (int64_t i = 0; i < count && RunControl::goes_on(); ++i) body(i);
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
