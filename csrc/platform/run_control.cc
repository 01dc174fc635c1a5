#include "platform/run_control.h"

namespace inferkit {

Stopped::Stopped() : Error(ErrorCode::kInference, "the run was stopped") {}
Stopped::Stopped(const Stopped&) noexcept = default;
Stopped::~Stopped() = default;

bool RunControl::ask() {
  if (stopped()) return false;
  const uint64_t ticks = core_ticks();
  if (ticks - ticks_ < kTicksUnread) return true;
  ticks_ = ticks;
  const Nanos now = SteadyClock::instance().now();
  if (now < next_) return true;
  const bool too_early = next_ == kNotAsked;
  next_ = now + kEvery;
  if (too_early || !look(now)) return true;
  stopped_.store(true, std::memory_order_relaxed);
  return false;
}

bool Deadline::look(Nanos now) {
  passed_ = now >= until_;
  if (passed_ || !outer_) return passed_;
  const Scope scope(outer_);  // which answers for the thread that it is current on
  return !outer_->go_on();
}

}  // namespace inferkit
