// What a batcher counts and times.
#pragma once
#include <array>

#include "batching/policy.h"
#include "batching/request.h"
#include "telemetry/counter.h"
#include "telemetry/histogram.h"
#include "telemetry/rate_meter.h"

namespace inferkit {

/// A copy of the figures at one moment. Every request that was admitted is in one of completed, failed, cancelled and
/// expired, or still on its way; rejected ones were refused, invalid ones never became requests.
struct BatcherStats {
  uint64_t completed = 0, failed = 0, cancelled = 0, expired = 0, rejected = 0, invalid = 0;
  size_t queue_depth = 0;
  size_t in_flight = 0;  // batches
  Nanos oldest_wait = 0;
  uint64_t batches = 0, rows = 0;   // rows that ran in them
  double mean_batch_size = 0;       // rows
  double batch_fill_rate = 0;       // of max_batch_size
  double requests_per_second = 0;   // completed, over the last seconds
  double inference_error_rate = 0;  // failed, of completed and failed
  std::array<uint64_t, kDispatchReasonCount> dispatched{};
  HistogramSnapshot queue, compute, total;  // enqueued to started, started to finished, enqueued to finished
};

/// Lock-free; the batcher's hot path calls it.
class Recorder {
 public:
  explicit Recorder(Nanos start) : rate_(start) {}

  void ended(Phase end, Nanos now);
  void invalid() { invalid_.add(); }
  void rejected() { ends_[index(Phase::kRejected)].add(); }
  void batch(DispatchReason reason, int64_t rows);
  void latency(Nanos enqueued, Nanos started, Nanos finished);
  /// Fills in what it knows; the queue's figures are the batcher's to add.
  void fill(BatcherStats& stats, int64_t max_rows, Nanos now) const;

 private:
  static size_t index(Phase end) { return size_t(end) - size_t(Phase::kResult); }

  std::array<Counter, kEndCount> ends_;
  std::array<Counter, kDispatchReasonCount> dispatched_;
  Counter invalid_, rows_;
  RateMeter rate_;
  Histogram queue_, compute_, total_;
};

}  // namespace inferkit
