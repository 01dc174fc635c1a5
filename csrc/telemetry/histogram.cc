#include "telemetry/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace inferkit {

size_t HistogramScale::bucket(uint64_t value) {
  constexpr uint64_t kLinear = uint64_t{1} << kSubBits;
  if (value < kLinear) return static_cast<size_t>(value);
  const int shift = std::bit_width(value) - 1 - kSubBits;  // keeps the leading one and kSubBits bits after it
  if (shift >= kMaxBits - kSubBits) return kBuckets - 1;
  return (static_cast<size_t>(shift) << kSubBits) + static_cast<size_t>(value >> shift);
}

uint64_t HistogramScale::lower(size_t bucket) {
  if (bucket < (size_t{2} << kSubBits)) return bucket;
  const size_t shift = (bucket >> kSubBits) - 1;
  return ((bucket & ((size_t{1} << kSubBits) - 1)) + (uint64_t{1} << kSubBits)) << shift;
}

uint64_t HistogramScale::middle(size_t bucket) {
  const uint64_t low = lower(bucket), next = lower(bucket + 1);
  return low + (next - low) / 2;
}

void HistogramSnapshot::merge(const HistogramSnapshot& other) {
  for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
  count_ += other.count_;
  sum_ += other.sum_;
  max_ = std::max(max_, other.max_);
}

void HistogramSnapshot::add(size_t bucket, uint64_t count) {
  counts_[bucket] += count;
  count_ += count;
  max_ = std::max(max_, HistogramScale::lower(bucket + 1) - 1);
}

uint64_t HistogramSnapshot::quantile(double q) const {
  if (count_ == 0) return 0;
  const double share = std::clamp(q, 0.0, 1.0) * double(count_);
  const uint64_t rank = std::max<uint64_t>(1, static_cast<uint64_t>(std::ceil(share)));
  uint64_t below = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    below += counts_[i];
    // The largest value is known exactly, and no quantile exceeds it.
    if (below >= rank) return below == count_ && rank == count_ ? max_ : std::min(HistogramScale::middle(i), max_);
  }
  return max_;
}

uint64_t HistogramSnapshot::count_at_most(uint64_t limit) const {
  const size_t last = HistogramScale::bucket(limit);
  uint64_t count = 0;
  for (size_t i = 0; i <= last; ++i) count += counts_[i];
  return count;
}

void Histogram::record(int64_t value) {
  const uint64_t v = value < 0 ? 0 : static_cast<uint64_t>(value);
  counts_[HistogramScale::bucket(v)].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(v, std::memory_order_relaxed);
  uint64_t seen = max_.load(std::memory_order_relaxed);
  while (v > seen && !max_.compare_exchange_weak(seen, v, std::memory_order_relaxed)) {
  }
}

HistogramSnapshot Histogram::snapshot() const {
  HistogramSnapshot out;
  for (size_t i = 0; i < counts_.size(); ++i) {
    out.counts_[i] = counts_[i].load(std::memory_order_relaxed);
    out.count_ += out.counts_[i];
  }
  out.sum_ = sum_.load(std::memory_order_relaxed);
  out.max_ = max_.load(std::memory_order_relaxed);
  return out;
}

}  // namespace inferkit
