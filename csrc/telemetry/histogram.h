// Log-linear histograms of durations: fixed memory, quantiles within 1% over the whole range, mergeable.
#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

namespace inferkit {

/// The bucket of a value: 64 linear buckets in every power of two, so a bucket is at most 1/64 of its values wide and
/// its middle is within 1/128 of any of them. Values from 2^42 (73 minutes in nanoseconds) share the last bucket.
struct HistogramScale {
  static constexpr int kSubBits = 6;
  static constexpr int kMaxBits = 42;
  static constexpr size_t kBuckets = (size_t{kMaxBits - kSubBits} + 1) << kSubBits;

  static size_t bucket(uint64_t value);
  static uint64_t lower(size_t bucket);
  static uint64_t middle(size_t bucket);
};

/// A copy of a histogram at one moment; merging two gives the histogram of both streams.
class HistogramSnapshot {
 public:
  HistogramSnapshot() : counts_(HistogramScale::kBuckets) {}

  void merge(const HistogramSnapshot& other);
  /// `count` values of a bucket; the maximum becomes the largest that it may have held.
  void add(size_t bucket, uint64_t count);
  void add_sum(uint64_t sum) { sum_ += sum; }
  /// None of the values was larger.
  void limit(uint64_t most) { max_ = std::min(max_, most); }
  uint64_t count() const { return count_; }
  uint64_t sum() const { return sum_; }
  uint64_t max() const { return max_; }
  double mean() const { return count_ ? double(sum_) / double(count_) : 0.0; }
  /// The value that a share `q` of all values do not exceed, within 1%; 0 where nothing was recorded.
  uint64_t quantile(double q) const;
  /// How many values are at most `limit`, within the width of a bucket.
  uint64_t count_at_most(uint64_t limit) const;

 private:
  friend class Histogram;
  std::vector<uint64_t> counts_;
  uint64_t count_ = 0, sum_ = 0, max_ = 0;
};

/// Thread-safe and lock-free: record() is two relaxed additions, and a third store where the maximum grows. A snapshot
/// taken meanwhile holds some of the values that are being recorded, each in its bucket or not at all.
class Histogram {
 public:
  void record(int64_t value);
  HistogramSnapshot snapshot() const;
  uint64_t count_in(size_t bucket) const { return counts_[bucket].load(std::memory_order_relaxed); }
  uint64_t sum() const { return sum_.load(std::memory_order_relaxed); }
  uint64_t max() const { return max_.load(std::memory_order_relaxed); }

 private:
  std::array<std::atomic<uint64_t>, HistogramScale::kBuckets> counts_{};
  std::atomic<uint64_t> sum_{0}, max_{0};
};

}  // namespace inferkit
