#include "telemetry/history.h"

#include <algorithm>

namespace inferkit {

History::History(Nanos start, std::vector<const Counter*> counters, std::vector<const Histogram*> histograms)
    : start_(start),
      counters_(std::move(counters)),
      histograms_(std::move(histograms)),
      next_(start + kSecond),
      buckets_seen_(histograms_.size(), std::vector<uint32_t>(HistogramScale::kBuckets)) {
  seen_.counts.resize(counters_.size());
  seen_.sums.resize(histograms_.size());
}

void History::collect(Slot& slot, bool keep) {
  slot.counts.assign(counters_.size(), 0);
  slot.sums.assign(histograms_.size(), 0);
  slot.gains.clear();
  for (size_t i = 0; i < counters_.size(); ++i) {
    const uint64_t value = counters_[i]->value();
    slot.counts[i] = value - seen_.counts[i];
    if (keep) seen_.counts[i] = value;
  }
  for (size_t h = 0; h < histograms_.size(); ++h) {
    const uint64_t sum = histograms_[h]->sum();
    slot.sums[h] = sum - seen_.sums[h];
    if (keep) seen_.sums[h] = sum;
    std::vector<uint32_t>& seen = buckets_seen_[h];
    for (size_t b = 0; b < HistogramScale::kBuckets; ++b) {
      const auto value = static_cast<uint32_t>(histograms_[h]->count_in(b));
      if (value == seen[b]) continue;
      slot.gains.push_back({static_cast<uint16_t>(h), static_cast<uint16_t>(b), value - seen[b]});
      if (keep) seen[b] = value;
    }
  }
}

void History::advance(Nanos now) {
  if (!mutex_.try_lock()) return;  // somebody is at it
  advance_locked(now);
  mutex_.unlock();
}

void History::advance_locked(Nanos now) {
  const int64_t second = (now - start_) / kSecond;
  if (second <= second_) return;
  // All of it belongs to the second that ran: an event of a later one would have brought us here before.
  Slot& slot = slots_[static_cast<size_t>(second_ % kSeconds)];
  collect(slot, true);
  slot.second = second_;
  second_ = second;
  next_.store(start_ + (second + 1) * kSecond, std::memory_order_relaxed);
}

Window History::window(Nanos now, int seconds) {
  seconds = std::clamp(seconds, 1, kSeconds);
  Window out;
  out.counts.resize(counters_.size());
  out.histograms.resize(histograms_.size());
  const MutexLock lock(mutex_);
  advance_locked(now);
  const auto add = [&](const Slot& slot) {
    for (size_t i = 0; i < counters_.size(); ++i) out.counts[i] += slot.counts[i];
    for (size_t h = 0; h < histograms_.size(); ++h) out.histograms[h].add_sum(slot.sums[h]);
    for (const Gain& gain : slot.gains) out.histograms[gain.histogram].add(gain.bucket, gain.count);
  };
  for (const Slot& slot : slots_) {
    if (slot.second >= 0 && slot.second >= second_ - seconds && slot.second < second_) add(slot);
  }
  collect(live_, false);
  add(live_);
  out.seconds = double(now - start_ - std::max<int64_t>(0, second_ - seconds) * kSecond) / kSecond;
  return out;
}

}  // namespace inferkit
