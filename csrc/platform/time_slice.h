// How long a thread may have a core before others that want it: asked of the kernel, which may know of it or not.
#pragma once
#include <cstdint>
#include <string_view>

#include "platform/clock.h"

namespace inferkit {

/// The shortest and the longest slice that Linux takes.
inline constexpr Nanos kShortestSlice = 100'000, kLongestSlice = 100'000'000;

/// Whether threads can have slices of their own in this process.
enum class SliceSupport : uint8_t {
  kYes,
  kUnknown,     // the kernel has none to speak of: Linux has since 6.12
  kRefused,     // it has, and would not change them, or does not let us look
  kOtherKind,   // the thread that asks is of a scheduling policy that has no slices, such as one of real-time
  kSwitchedOff  // by INFERKIT_TIME_SLICES=0: a filter of system calls may end who makes the call, not refuse it
};
/// As the calling thread finds it.
SliceSupport slice_support() noexcept;
/// For people: "yes", or why not.
std::string_view slice_support_text(SliceSupport support) noexcept;

/// The slice of one thread, which makes it, uses it and drops it. Of two threads that share a core Linux (6.12 and
/// later) lets the one with the shorter slice go first when it wakes up, and each has as much of the core in the end as
/// if both were equal. So who needs a core for a moment, and says so, does not wait for one who needs it for long. No
/// privilege is needed, and the nice value stays.
class TimeSlice {
 public:
  /// Looks at what the thread has.
  TimeSlice() noexcept;
  TimeSlice(const TimeSlice&) = delete;
  TimeSlice& operator=(const TimeSlice&) = delete;

  /// Asks for slices of `wanted`, at least kShortestSlice, or for what the thread had at first where that is no longer:
  /// nobody asks for more than everybody has. A system call where that is a change; whether it was one. Once this
  /// process was refused, nobody asks any more.
  bool fit(Nanos wanted) noexcept;
  /// False where fit() can do nothing.
  bool may_ask() const noexcept { return usual_ > 0; }

  /// What the thread has by our asking; 0: what it had at first.
  Nanos asked() const noexcept { return asked_; }

 private:
  Nanos usual_ = 0;  // what it had at first; 0: nothing can be asked
  Nanos asked_ = 0;
};

}  // namespace inferkit
