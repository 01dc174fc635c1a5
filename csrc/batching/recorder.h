// What a batcher counts, times and writes down.
#pragma once
#include <array>
#include <functional>

#include "batching/cores.h"
#include "batching/pace.h"
#include "batching/pad_cost.h"
#include "batching/policy.h"
#include "batching/request.h"
#include "batching/result_cache.h"
#include "batching/why_not.h"
#include "telemetry/counter.h"
#include "telemetry/histogram.h"
#include "telemetry/history.h"
#include "telemetry/trace_ring.h"

namespace inferkit {

/// The figures of the last seconds.
struct WindowStats {
  int seconds = 0;     // asked for: the last whole ones, and the one that runs
  double covered = 0;  // less while the batcher is young
  uint64_t completed = 0, failed = 0, cancelled = 0, expired = 0, rejected = 0, invalid = 0, batches = 0, rows = 0;
  double requests_per_second = 0;  // completed
  double batch_fill_rate = 0;
  double inference_error_rate = 0;
  double unserved_rate = 0;  // rejected and expired, of those and the ones that ran
  double invalid_rate = 0;   // of all that came
  HistogramSnapshot queue, compute, total;
};
inline constexpr std::array<int, 3> kWindows{1, 10, 60};

/// Batches by rows: 1, 2, 3 to 4, 5 to 8, ... The last holds all that are larger.
inline constexpr size_t kBatchSizeBuckets = 16;

/// A copy of the figures at one moment. Every request that was admitted is in one of completed, failed, cancelled,
/// expired and invalid, or still on its way; rejected ones were refused. Most that are invalid never became requests:
/// the model itself finds only that it cannot run on inputs of such sizes.
struct BatcherStats {
  uint64_t completed = 0, failed = 0, cancelled = 0, expired = 0, rejected = 0, invalid = 0;
  size_t queue_depth = 0;
  size_t in_flight = 0;  // batches
  Nanos oldest_wait = 0;
  Nanos longest_run = 0;                 // of the batches that run
  int workers = 0, workers_missing = 0;  // that there are; that the system gave no threads for
  Nanos slice = 0;                       // of a core, that its workers have asked the kernel for; 0: the kernel's own
  double weight = 1;                     // of its share in the cores of all batchers
  CoreFigures cores{};                   // and what it has had of them
  uint64_t batches = 0, rows = 0;        // rows that ran in them
  uint64_t elements = 0;                 // of the inputs that are padded, in runs
  uint64_t padding = 0;                  // of those, what was filled in
  double padding_rate = 0;               // the one of the other
  std::string padding_refusal;           // why requests are not padded, or not to some lengths; "" where they are
  std::map<int64_t, PadCost::Figure> padding_costs;  // by the lengths that are padded to
  uint64_t coalesced = 0;                            // requests that waited for the answer to an equal one
  ResultCacheFigures cache{};
  double mean_batch_size = 0;                                    // rows
  double batch_fill_rate = 0;                                    // of max_batch_size
  double requests_per_second = 0;                                // completed, over the last ten seconds
  double inference_error_rate = 0;                               // failed, of completed and failed
  std::array<uint64_t, kDispatchReasonCount> dispatched{};       // batches
  std::array<uint64_t, kDispatchReasonCount> dispatched_rows{};  // and theirs
  std::array<uint64_t, kWhyNotCount> unanswered{};
  std::array<uint64_t, kBatchSizeBuckets> batch_sizes{};
  HistogramSnapshot queue, compute, total;  // enqueued to started, started to finished, enqueued to finished
  std::array<WindowStats, kWindows.size()> windows;
  PaceFigures pace;
};

/// Second by second, the oldest first; the last one still runs.
struct BatcherSeries {
  double running = 0;  // how much of the last second has passed
  std::vector<uint64_t> completed, failed, cancelled, expired, rejected, invalid, rows, batches;
  std::vector<uint64_t> queue_depth;  // at each second's end
};

/// TraceEntry::kind.
enum class TraceKind : uint8_t { kRequest, kBatch };

/// Lock-free; the batcher's hot path calls it.
class Recorder {
 public:
  /// `depth` tells how many requests wait; it must not wait itself.
  Recorder(const Clock& clock, size_t trace_capacity, std::function<uint64_t()> depth, TargetWatch* watch = nullptr);

  /// A request is about to join the queue.
  void arrives(Nanos now) { history_.tick(now); }
  /// `code` is what the error was, where there was one: what the model finds wrong with an input is no failure of it.
  /// Those of its tags are counted as well.
  void ended(Phase end, Nanos now, ErrorCode code = ErrorCode::kOk, TagSet* tags = nullptr);
  void invalid(TagSet* tags);
  void rejected(WhyNot why, TagSet* tags) {
    not_answered(why);
    ended(Phase::kRejected, clock_.now(), ErrorCode::kOk, tags);
  }
  /// Besides ended().
  void not_answered(WhyNot why) { unanswered_[size_t(why)].add(); }
  void batch(DispatchReason reason, int64_t rows);
  void latency(Nanos enqueued, Nanos started, Nanos finished);
  /// Of the inputs that are padded, in a run: how many there were, and how many of them were padding.
  void elements(uint64_t all, uint64_t padding) {
    if (all) elements_.add(all);  // most batchers pad nothing
    if (padding) padding_.add(padding);
  }

  /// What there is to write down of a request that was claimed, before its end is published: then its fields are no
  /// longer ours. Afterwards trace() writes it down, so that nobody waits for that.
  TraceEntry entry(const Request& request, Phase end) const;
  void trace(TraceEntry entry, Request& request);
  /// The caller has taken the end of a request, at `now`; before or after trace().
  void delivered(Request& request, Nanos now);
  /// A batch that has run; `record` has its times and sizes.
  void trace_batch(TraceEntry record, DispatchReason reason);
  /// A request that was no Request: a caller's run, or one that was refused.
  void trace_call(TraceEntry record, Phase end, uint8_t reason, const std::string& name);
  /// TraceEntry::reason of a request: a DispatchReason, or why it got no answer, or neither.
  static constexpr uint8_t kNoReason = 0xff, kFirstWhyNot = 0x40;
  static uint8_t traced(WhyNot why) { return static_cast<uint8_t>(kFirstWhyNot + uint8_t(why)); }
  TraceRing& ring() { return ring_; }
  const TraceRing& ring() const { return ring_; }

  /// Fills in what it knows; the queue's figures are the batcher's to add.
  void fill(BatcherStats& stats, int64_t max_rows, Nanos now) const;
  BatcherSeries series(Nanos now) const;

 private:
  static size_t index(Phase end) { return size_t(end) - size_t(Phase::kResult); }
  std::vector<const Counter*> counters() const;

  const Clock& clock_;
  std::array<Counter, kEndCount> ends_;
  std::array<Counter, kDispatchReasonCount> dispatched_, dispatched_rows_;
  std::array<Counter, kWhyNotCount> unanswered_;
  Counter invalid_, elements_, padding_;
  std::array<std::atomic<uint64_t>, kBatchSizeBuckets> sizes_{};
  Histogram queue_, compute_, total_;
  TargetWatch* const watch_;  // null where nobody asks
  mutable History history_;   // of those above
  TraceRing ring_;
};

}  // namespace inferkit
