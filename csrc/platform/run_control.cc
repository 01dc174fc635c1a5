#include "platform/run_control.h"

namespace inferkit {

Stopped::Stopped() : Error(ErrorCode::kInference, "the run was stopped") {}
Stopped::Stopped(const Stopped&) noexcept = default;
Stopped::~Stopped() = default;

bool RunControl::ask() {
  if (stopped()) return false;
  if (left_ > 0) {
    --left_;
    return true;
  }
  const Nanos now = SteadyClock::instance().now();
  const Nanos each = std::max<Nanos>(1, (now - read_) / (unread_ + 1));
  read_ = now;
  unread_ = left_ = static_cast<int>(std::min<Nanos>(kClockEvery / each, kMostUnread));
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
