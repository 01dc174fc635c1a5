#include "platform/time_slice.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <optional>
#include <string_view>

namespace inferkit {
namespace {

/// What the system calls take and give, in its first version: later ones only add to it. (Since 2.41 glibc declares a
/// struct sched_attr, with the calls.)
struct SchedulingAttributes {
  uint32_t size = sizeof(SchedulingAttributes);
  uint32_t policy = 0;
  uint64_t flags = 0;
  int32_t nice = 0;
  uint32_t priority = 0;
  uint64_t runtime = 0;  // of an ordinary thread, its slice; 0 from kernels that know none
  uint64_t deadline = 0;
  uint64_t period = 0;
};
static_assert(sizeof(SchedulingAttributes) == 48);

/// SCHED_FLAG_RESET_ON_FORK: threads and processes that this one starts have the usual slice, and the usual nice value
/// where this one's is below 0.
constexpr uint64_t kResetOnFork = 1;

/// This process was refused. Relaxed: who does not see it yet is refused, too.
constinit std::atomic<bool> slices_refused{false};

/// Of the calling thread; nullopt where the kernel has no such call, or does not let us.
std::optional<SchedulingAttributes> attributes() noexcept {
#ifdef SYS_sched_getattr
  SchedulingAttributes out;
  if (syscall(SYS_sched_getattr, 0, &out, sizeof out, 0) == 0) return out;
#endif
  return std::nullopt;
}

bool set_attributes([[maybe_unused]] const SchedulingAttributes& to) noexcept {
#ifdef SYS_sched_setattr
  return syscall(SYS_sched_setattr, 0, &to, 0) == 0;
#else
  return false;
#endif
}

/// No system call is made then, of these.
bool switched_off() noexcept {
  const char* wish = std::getenv("INFERKIT_TIME_SLICES");
  return wish && std::string_view(wish) == "0";
}

bool is_ordinary(const SchedulingAttributes& of) { return of.policy == SCHED_OTHER || of.policy == SCHED_BATCH; }

}  // namespace

SliceSupport slice_support() noexcept {
  if (switched_off()) return SliceSupport::kSwitchedOff;
  if (slices_refused.load(std::memory_order_relaxed)) return SliceSupport::kRefused;
  const auto now = attributes();
  if (!now) return SliceSupport::kRefused;
  if (!is_ordinary(*now)) return SliceSupport::kOtherKind;
  return now->runtime > 0 ? SliceSupport::kYes : SliceSupport::kUnknown;
}

std::string_view slice_support_text(SliceSupport support) noexcept {
  switch (support) {
    case SliceSupport::kYes:
      return "yes";
    case SliceSupport::kUnknown:
      return "no: this kernel has no slices of threads (Linux has since 6.12)";
    case SliceSupport::kRefused:
      return "no: the kernel, or a filter of system calls, refuses sched_setattr";
    case SliceSupport::kOtherKind:
      return "no: the scheduling policy of this thread has none";
    case SliceSupport::kSwitchedOff:
      return "no: INFERKIT_TIME_SLICES=0 is set";
  }
  return "";
}

TimeSlice::TimeSlice() noexcept {
  if (switched_off() || slices_refused.load(std::memory_order_relaxed)) return;
  const auto now = attributes();
  if (now && is_ordinary(*now)) usual_ = static_cast<Nanos>(now->runtime);
}

bool TimeSlice::fit(Nanos wanted) noexcept {
  if (usual_ == 0) return false;
  wanted = std::max(wanted, kShortestSlice);
  const Nanos next = wanted < usual_ ? wanted : 0;
  if (next == asked_ || slices_refused.load(std::memory_order_relaxed)) return false;
  // As they are now: somebody else may have changed the thread's nice value, or its policy.
  auto to = attributes();
  if (!to || !is_ordinary(*to)) return false;
  to->runtime = static_cast<uint64_t>(next ? next : usual_);
  if (to->nice >= 0) to->flags |= kResetOnFork;
  if (!set_attributes(*to)) {
    slices_refused.store(true, std::memory_order_relaxed);
    usual_ = 0;
    return false;
  }
  asked_ = next;
  return true;
}

}  // namespace inferkit
