// What counters and histograms gained in each of the last seconds, at no cost to those who raise them.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "platform/clock.h"
#include "platform/mutex.h"
#include "telemetry/counter.h"
#include "telemetry/gain_ring.h"
#include "telemetry/histogram.h"

namespace inferkit {

/// What was gained in a window, in the order in which the History was given its sources.
struct Window {
  double seconds = 0;  // that it covers
  std::vector<uint64_t> counts;
  std::vector<HistogramSnapshot> histograms;  // as precise as their sources
};

/// Second by second, the oldest first; the last one still runs.
struct Series {
  double running = 0;                         // how much of the last second has passed
  std::vector<std::vector<uint64_t>> counts;  // what each counter gained
  std::vector<uint64_t> gauge;                // at each second's end
};

/// Thread-safe. Somebody calls tick() with every event; the first one in a new second writes down what the one before
/// it gained (some microseconds), and nobody waits for that. Recent values are written sparsely, into memory that holds
/// the busiest minute so far: it is as large as it gets after that, and has an upper limit, max_memory_bytes().
class History {
 public:
  static constexpr int kSeconds = 60;         // of windows
  static constexpr int kSeriesSeconds = 300;  // counters alone take little room

  /// The sources outlive this. `gauge` is read once a second, on the thread of an event, and must not wait.
  History(Nanos start, std::vector<const Counter*> counters, std::vector<const Histogram*> histograms,
          std::function<uint64_t()> gauge = {});

  void tick(Nanos now) {
    if (now >= next_.load(std::memory_order_relaxed)) advance(now);
  }
  /// Over the last `seconds` whole seconds and the one that runs, or since the start where that is less.
  Window window(Nanos now, int seconds);
  /// The last 300 whole seconds and the one that runs, or since the start where that is less.
  Series series(Nanos now);

  /// Of the gains; all else is there from the start.
  size_t memory_bytes() const;
  /// What memory_bytes() would be if every bucket gained in every second.
  size_t max_memory_bytes() const { return most_gains() * sizeof(Gain); }

 private:
  static constexpr Nanos kSecond = 1'000'000'000;
  struct Slot {
    int64_t second = -1;  // -1: nothing
    std::vector<uint64_t> counts, sums;
    uint64_t first = 0, last = 0;  // its gains, one past the end
  };

  size_t most_gains() const { return kSeconds * histograms_.size() * HistogramScale::kBuckets; }
  void advance(Nanos now);
  void advance_locked(Nanos now) REQUIRES(mutex_);
  uint64_t gauge_now() const { return gauge_ ? gauge_() : 0; }
  /// Where the series keeps a second: the counts, then the gauge.
  std::span<uint32_t> kept(int64_t second) REQUIRES(mutex_) {
    const size_t width = counters_.size() + 1;
    return std::span(series_).subspan(static_cast<size_t>(second % kSeriesSeconds) * width, width);
  }
  /// Lets go of the seconds that no window reaches any more when `second` runs.
  void forget(int64_t second) REQUIRES(mutex_);
  /// What the sources have gained since `seen_`; brings that up to date where `keep` says so.
  template <class Take>
  void collect(Slot& slot, bool keep, Take&& take) REQUIRES(mutex_);

  const Nanos start_;
  const std::vector<const Counter*> counters_;
  const std::vector<const Histogram*> histograms_;
  const std::function<uint64_t()> gauge_;
  std::atomic<Nanos> next_;  // when the running second ends; relaxed: a little late does no harm

  mutable Mutex mutex_;  // guards what follows; tick() never waits for it
  int64_t second_ GUARDED_BY(mutex_) = 0;
  Slot seen_ GUARDED_BY(mutex_);  // what the sources held when the running second began
  std::vector<std::vector<uint32_t>> buckets_seen_ GUARDED_BY(mutex_);  // the same; differences are right modulo 2^32
  std::array<Slot, kSeconds> slots_ GUARDED_BY(mutex_);
  std::vector<uint32_t> series_ GUARDED_BY(mutex_);  // of every second, those without an event too
  GainRing gains_ GUARDED_BY(mutex_);                // of all slots, the oldest first
  Slot live_ GUARDED_BY(mutex_);                     // counts and sums of the second that runs
};

}  // namespace inferkit
