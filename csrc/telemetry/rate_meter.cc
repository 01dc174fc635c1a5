#include "telemetry/rate_meter.h"

#include <algorithm>

namespace inferkit {

void RateMeter::add(Nanos now, uint64_t n) {
  const int64_t second = (now - start_) / kSecond;
  Slot& slot = slots_[static_cast<size_t>(second % kSlots)];
  int64_t held = slot.second.load(std::memory_order_acquire);
  if (held != second && slot.second.compare_exchange_strong(held, second, std::memory_order_acq_rel)) {
    slot.count.store(0, std::memory_order_relaxed);
  }
  slot.count.fetch_add(n, std::memory_order_relaxed);
}

double RateMeter::per_second(Nanos now) const {
  const int64_t second = (now - start_) / kSecond;
  uint64_t count = 0;
  for (const Slot& slot : slots_) {
    const int64_t held = slot.second.load(std::memory_order_acquire);
    if (held >= 0 && held <= second && held > second - kWindow) count += slot.count.load(std::memory_order_relaxed);
  }
  // The oldest slot of the window is whole and the newest is not: the window ends in the middle of a second.
  const double into = double(now - start_ - second * kSecond) / kSecond;
  const double span = std::min(double(now - start_) / kSecond, kWindow - 1 + into);
  return span > 0 ? double(count) / std::max(span, 1e-3) : 0.0;
}

}  // namespace inferkit
