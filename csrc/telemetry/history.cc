#include "telemetry/history.h"

#include <algorithm>
#include <limits>
#include <stdexcept>

namespace inferkit {
namespace {

uint32_t narrowed(uint64_t value) {
  return static_cast<uint32_t>(std::min<uint64_t>(value, std::numeric_limits<uint32_t>::max()));
}

}  // namespace

History::History(Nanos start, std::vector<const Counter*> counters, std::vector<const Histogram*> histograms,
                 std::function<uint64_t()> gauge)
    : start_(start),
      counters_(std::move(counters)),
      histograms_(std::move(histograms)),
      gauge_(std::move(gauge)),
      next_(start + kSecond),
      buckets_seen_(histograms_.size(), std::vector<uint32_t>(HistogramScale::kBuckets)),
      series_(static_cast<size_t>(kSeriesSeconds) * (counters_.size() + 1)),
      gains_(most_gains()) {
  if (histograms_.size() * HistogramScale::kBuckets > size_t{1} << 16) {
    throw std::invalid_argument("a History takes at most 27 histograms: a gain has 16 bits for its bucket");
  }
  const auto prepare = [&](Slot& slot) {
    slot.counts.resize(counters_.size());
    slot.sums.resize(histograms_.size());
  };
  prepare(seen_);
  prepare(live_);
  for (Slot& slot : slots_) prepare(slot);
}

template <class Take>
void History::collect(Slot& slot, bool keep, Take&& take) {
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
      take(h * HistogramScale::kBuckets + b, value - seen[b]);
      if (keep) seen[b] = value;
    }
  }
}

void History::advance(Nanos now) {
  if (!mutex_.try_lock()) return;  // somebody is at it
  advance_locked(now);
  mutex_.unlock();
}

void History::forget(int64_t second) {
  uint64_t first = gains_.end();
  for (Slot& slot : slots_) {
    if (slot.second < 0) continue;
    if (slot.second < second - kSeconds) {
      slot.second = -1;
    } else {
      first = std::min(first, slot.first);
    }
  }
  gains_.drop_before(first);
}

void History::advance_locked(Nanos now) {
  const int64_t second = (now - start_) / kSecond;
  if (second <= second_) return;
  forget(second);
  // All of it belongs to the second that ran: an event of a later one would have brought us here before.
  Slot& slot = slots_[static_cast<size_t>(second_ % kSeconds)];
  slot.first = gains_.end();
  collect(slot, true, [this](size_t bucket, uint32_t count) REQUIRES(mutex_) {
    gains_.push({static_cast<uint16_t>(bucket), count});  // without memory for it, the window shows less
  });
  slot.last = gains_.end();
  slot.second = second_;
  const uint32_t gauge = narrowed(gauge_now());
  for (int64_t idle = std::max(second_, second - kSeriesSeconds); idle < second; ++idle) {
    const std::span<uint32_t> row = kept(idle);  // seconds after the one that ran had no event, so nothing moved
    std::fill(row.begin(), row.end(), 0);
    row.back() = gauge;
  }
  if (second_ >= second - kSeriesSeconds)
    std::transform(slot.counts.begin(), slot.counts.end(), kept(second_).begin(), narrowed);
  second_ = second;
  next_.store(start_ + (second + 1) * kSecond, std::memory_order_relaxed);
}

Window History::window(Nanos now, int seconds) {
  seconds = std::clamp(seconds, 1, kSeconds);
  Window out;
  out.counts.resize(counters_.size());
  out.histograms.resize(histograms_.size());
  const auto gain = [&](size_t bucket, uint32_t count) {
    out.histograms[bucket / HistogramScale::kBuckets].add(bucket % HistogramScale::kBuckets, count);
  };
  const auto add = [&](const Slot& slot) {
    for (size_t i = 0; i < counters_.size(); ++i) out.counts[i] += slot.counts[i];
    for (size_t h = 0; h < histograms_.size(); ++h) out.histograms[h].add_sum(slot.sums[h]);
  };
  const MutexLock lock(mutex_);
  advance_locked(now);
  for (const Slot& slot : slots_) {
    if (slot.second < 0 || slot.second < second_ - seconds || slot.second >= second_) continue;
    add(slot);
    for (uint64_t i = slot.first; i < slot.last; ++i) gain(gains_[i].bucket, gains_[i].count());
  }
  collect(live_, false, gain);
  add(live_);
  for (size_t h = 0; h < histograms_.size(); ++h) out.histograms[h].limit(histograms_[h]->max());
  out.seconds = double(now - start_ - std::max<int64_t>(0, second_ - seconds) * kSecond) / kSecond;
  return out;
}

Series History::series(Nanos now) {
  Series out;
  out.counts.resize(counters_.size());
  const MutexLock lock(mutex_);
  advance_locked(now);
  const int64_t first = std::max<int64_t>(0, second_ - kSeriesSeconds);
  for (int64_t second = first; second < second_; ++second) {
    const std::span<const uint32_t> row = kept(second);
    for (size_t i = 0; i < counters_.size(); ++i) out.counts[i].push_back(row[i]);
    out.gauge.push_back(row.back());
  }
  for (size_t i = 0; i < counters_.size(); ++i) out.counts[i].push_back(counters_[i]->value() - seen_.counts[i]);
  out.gauge.push_back(gauge_now());
  out.running = double(now - start_ - second_ * kSecond) / kSecond;
  return out;
}

size_t History::memory_bytes() const {
  const MutexLock lock(mutex_);
  return gains_.memory_bytes();
}

}  // namespace inferkit
