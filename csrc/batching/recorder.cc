#include "batching/recorder.h"

#include <bit>

#include "platform/threads.h"

namespace inferkit {
namespace {

double ratio(uint64_t part, uint64_t whole) { return whole ? double(part) / double(whole) : 0.0; }

}  // namespace

Recorder::Recorder(Nanos start, size_t trace_capacity)
    : history_(start, counters(), {&queue_, &compute_, &total_}), ring_(trace_capacity) {}

// The order in which fill() reads them from a window.
std::vector<const Counter*> Recorder::counters() const {
  std::vector<const Counter*> out{&ends_[index(Phase::kResult)], &ends_[index(Phase::kError)], &rows_};
  for (const Counter& counter : dispatched_) out.push_back(&counter);
  return out;
}

void Recorder::ended(Phase end, Nanos now) {
  history_.tick(now);
  ends_[index(end)].add();
}

void Recorder::batch(DispatchReason reason, int64_t rows) {
  dispatched_[size_t(reason)].add();
  rows_.add(static_cast<uint64_t>(rows));
  const auto bucket = static_cast<size_t>(std::bit_width(static_cast<uint64_t>(rows - 1)));
  sizes_[std::min(bucket, kBatchSizeBuckets - 1)].fetch_add(1, std::memory_order_relaxed);
}

void Recorder::latency(Nanos enqueued, Nanos started, Nanos finished) {
  history_.tick(finished);  // first: what follows belongs to the new second
  queue_.record(started - enqueued);
  compute_.record(finished - started);
  total_.record(finished - enqueued);
}

void Recorder::trace(Request& request, Phase end) {
  if (!ring_.enabled()) return;
  const auto load = [](const std::atomic<Nanos>& at) { return at.load(std::memory_order_relaxed); };
  const RequestTimes& t = request.times;
  TraceEntry r;
  r.id = request.id;
  if (end == Phase::kResult || end == Phase::kError) {
    r.batch_id = request.batch_id;
    r.batch_rows = static_cast<uint32_t>(request.batch_rows);
  }
  r.enqueued = load(t.enqueued);
  r.dequeued = load(t.dequeued);
  r.started = load(t.started);
  r.finished = load(t.finished);
  r.delivered = load(t.delivered);
  r.thread = thread_id();
  r.rows = static_cast<uint32_t>(request.rows);
  r.kind = uint8_t(TraceKind::kRequest);
  r.outcome = uint8_t(end);
  r.reason = kDispatchReasonCount;
  const uint64_t sequence = ring_.add(r, request.name);
  // Sequentially consistent, as delivered() is: it finds the sequence, or this finds the time.
  request.trace.store(sequence);
  if (const Nanos at = t.delivered.load(); at && !r.delivered) ring_.deliver(sequence, at);
}

void Recorder::delivered(Request& request, Nanos now) {
  request.times.delivered.store(now);
  ring_.deliver(request.trace.load(), now);
}

void Recorder::trace_batch(TraceEntry r, DispatchReason reason) {
  r.thread = thread_id();
  r.kind = uint8_t(TraceKind::kBatch);
  r.reason = uint8_t(reason);
  ring_.add(r, {});
}

void Recorder::trace_call(TraceEntry r, Phase end, DispatchReason reason, const std::string& name) {
  if (!ring_.enabled()) return;
  r.thread = thread_id();
  r.kind = uint8_t(TraceKind::kRequest);
  r.outcome = uint8_t(end);
  r.reason = uint8_t(reason);
  ring_.add(r, name);
}

void Recorder::fill(BatcherStats& s, int64_t max_rows, Nanos now) const {
  s.completed = ends_[index(Phase::kResult)].value();
  s.failed = ends_[index(Phase::kError)].value();
  s.cancelled = ends_[index(Phase::kCancelled)].value();
  s.expired = ends_[index(Phase::kExpired)].value();
  s.rejected = ends_[index(Phase::kRejected)].value() + ends_[index(Phase::kClosed)].value();
  s.invalid = invalid_.value();
  for (size_t i = 0; i < s.dispatched.size(); ++i) s.batches += s.dispatched[i] = dispatched_[i].value();
  for (size_t i = 0; i < kBatchSizeBuckets; ++i) s.batch_sizes[i] = sizes_[i].load(std::memory_order_relaxed);
  s.rows = rows_.value();
  s.mean_batch_size = ratio(s.rows, s.batches);
  s.batch_fill_rate = s.mean_batch_size / double(max_rows);
  s.inference_error_rate = ratio(s.failed, s.completed + s.failed);
  s.queue = queue_.snapshot();
  s.compute = compute_.snapshot();
  s.total = total_.snapshot();
  for (size_t i = 0; i < kWindows.size(); ++i) {
    Window window = history_.window(now, kWindows[i]);
    WindowStats& w = s.windows[i];
    w.seconds = kWindows[i];
    w.covered = window.seconds;
    w.completed = window.counts[0];
    w.failed = window.counts[1];
    w.rows = window.counts[2];
    for (size_t c = 3; c < window.counts.size(); ++c) w.batches += window.counts[c];
    w.requests_per_second = w.covered > 0 ? double(w.completed) / std::max(w.covered, 1e-3) : 0.0;
    w.batch_fill_rate = ratio(w.rows, w.batches) / double(max_rows);
    w.inference_error_rate = ratio(w.failed, w.completed + w.failed);
    w.queue = std::move(window.histograms[0]);
    w.compute = std::move(window.histograms[1]);
    w.total = std::move(window.histograms[2]);
  }
  s.requests_per_second = s.windows[1].requests_per_second;
}

}  // namespace inferkit
