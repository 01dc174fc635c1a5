#include "batching/recorder.h"

#include <bit>

#include "batching/tags.h"
#include "platform/threads.h"

namespace inferkit {
namespace {

constexpr size_t kInvalidAt = kEndCount, kDispatchedAt = kInvalidAt + 1;
constexpr size_t kRowsAt = kDispatchedAt + kDispatchReasonCount, kCounters = kRowsAt + kDispatchReasonCount;

double ratio(uint64_t part, uint64_t whole) { return whole ? double(part) / double(whole) : 0.0; }

}  // namespace

Recorder::Recorder(const Clock& clock, size_t trace_capacity, std::function<uint64_t()> depth, TargetWatch* watch)
    : clock_(clock),
      watch_(watch),
      history_(clock.now(), counters(), {&queue_, &compute_, &total_}, std::move(depth)),
      ring_(trace_capacity) {}

// First the ends by their phases, then this, then why batches went, then their rows likewise.
std::vector<const Counter*> Recorder::counters() const {
  std::vector<const Counter*> out;
  for (const Counter& counter : ends_) out.push_back(&counter);
  out.push_back(&invalid_);
  for (const auto* each : {&dispatched_, &dispatched_rows_}) {
    for (const Counter& counter : *each) out.push_back(&counter);
  }
  return out;
}

void Recorder::ended(Phase end, Nanos now, ErrorCode code, TagSet* tags) {
  history_.tick(now);
  const bool invalid = end == Phase::kError && code == ErrorCode::kValidation;
  (invalid ? invalid_ : ends_[index(end)]).add();
  if (tags) invalid ? tags->invalid() : tags->ended(end);
}

void Recorder::invalid(TagSet* tags) {
  history_.tick(clock_.now());
  invalid_.add();
  if (tags) tags->invalid();
}

void Recorder::batch(DispatchReason reason, int64_t rows) {
  dispatched_[size_t(reason)].add();
  dispatched_rows_[size_t(reason)].add(static_cast<uint64_t>(rows));
  const auto bucket = static_cast<size_t>(std::bit_width(static_cast<uint64_t>(rows - 1)));
  sizes_[std::min(bucket, kBatchSizeBuckets - 1)].fetch_add(1, std::memory_order_relaxed);
}

void Recorder::latency(Nanos enqueued, Nanos started, Nanos finished) {
  history_.tick(finished);  // first: what follows belongs to the new second
  queue_.record(started - enqueued);
  compute_.record(finished - started);
  total_.record(finished - enqueued);
  if (watch_) watch_->answered(finished - enqueued);
}

TraceEntry Recorder::entry(const Request& request, Phase end) const {
  TraceEntry r;
  if (!ring_.enabled()) return r;
  const auto load = [](const std::atomic<Nanos>& at) { return at.load(std::memory_order_relaxed); };
  const RequestTimes& t = request.times;
  r.id = request.id;
  if (end == Phase::kResult || end == Phase::kError) {
    r.batch_id = request.batch_id;
    r.batch_rows = static_cast<uint32_t>(request.batch_rows);
  }
  r.enqueued = load(t.enqueued);
  r.dequeued = load(t.dequeued);
  r.started = load(t.started);
  r.finished = load(t.finished);
  r.rows = static_cast<uint32_t>(request.rows);
  r.kind = uint8_t(TraceKind::kRequest);
  r.outcome = uint8_t(end);
  r.reason = request.why_not ? traced(*request.why_not) : kNoReason;
  r.priority = static_cast<int8_t>(request.priority);
  if (request.tags) r.tags = request.tags->id;
  return r;
}

void Recorder::trace(TraceEntry r, Request& request) {
  if (!ring_.enabled() || r.outcome == 0) return;  // switched on a moment ago
  r.delivered = request.times.delivered.load(std::memory_order_relaxed);
  r.thread = thread_id();
  const uint64_t sequence = ring_.add(r, request.name);
  // Sequentially consistent, as delivered() is: it finds the sequence, or this finds the time.
  request.trace.store(sequence);
  if (const Nanos at = request.times.delivered.load(); at && !r.delivered) ring_.deliver(sequence, at);
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

void Recorder::trace_call(TraceEntry r, Phase end, uint8_t reason, const std::string& name) {
  if (!ring_.enabled()) return;
  r.thread = thread_id();
  r.kind = uint8_t(TraceKind::kRequest);
  r.outcome = uint8_t(end);
  r.reason = reason;
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
  for (size_t i = 0; i < s.dispatched_rows.size(); ++i) s.rows += s.dispatched_rows[i] = dispatched_rows_[i].value();
  for (size_t i = 0; i < s.unanswered.size(); ++i) s.unanswered[i] = unanswered_[i].value();
  for (size_t i = 0; i < kBatchSizeBuckets; ++i) s.batch_sizes[i] = sizes_[i].load(std::memory_order_relaxed);
  s.elements = elements_.value();
  s.padding = padding_.value();
  s.padding_rate = ratio(s.padding, s.elements);
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
    const auto ended = [&](Phase end) { return window.counts[index(end)]; };
    w.completed = ended(Phase::kResult);
    w.failed = ended(Phase::kError);
    w.cancelled = ended(Phase::kCancelled);
    w.expired = ended(Phase::kExpired);
    w.rejected = ended(Phase::kRejected) + ended(Phase::kClosed);
    w.invalid = window.counts[kInvalidAt];
    for (size_t c = kDispatchedAt; c < kRowsAt; ++c) w.batches += window.counts[c];
    for (size_t c = kRowsAt; c < kCounters; ++c) w.rows += window.counts[c];
    w.requests_per_second = w.covered > 0 ? double(w.completed) / std::max(w.covered, 1e-3) : 0.0;
    w.batch_fill_rate = ratio(w.rows, w.batches) / double(max_rows);
    w.inference_error_rate = ratio(w.failed, w.completed + w.failed);
    const uint64_t unserved = w.rejected + w.expired, valid = w.completed + w.failed + unserved;
    w.unserved_rate = ratio(unserved, valid);
    w.invalid_rate = ratio(w.invalid, valid + w.cancelled + w.invalid);
    w.queue = std::move(window.histograms[0]);
    w.compute = std::move(window.histograms[1]);
    w.total = std::move(window.histograms[2]);
  }
  s.requests_per_second = s.windows[1].requests_per_second;
}

BatcherSeries Recorder::series(Nanos now) const {
  Series all = history_.series(now);
  const auto ended = [&](Phase end) -> std::vector<uint64_t>& { return all.counts[index(end)]; };
  const auto add = [](std::vector<uint64_t>& to, const std::vector<uint64_t>& more) {
    for (size_t i = 0; i < to.size(); ++i) to[i] += more[i];
  };
  BatcherSeries out;
  out.running = all.running;
  out.completed = std::move(ended(Phase::kResult));
  out.failed = std::move(ended(Phase::kError));
  out.cancelled = std::move(ended(Phase::kCancelled));
  out.expired = std::move(ended(Phase::kExpired));
  out.rejected = std::move(ended(Phase::kRejected));
  add(out.rejected, ended(Phase::kClosed));
  out.invalid = std::move(all.counts[kInvalidAt]);
  out.batches.resize(out.invalid.size());
  out.rows.resize(out.invalid.size());
  for (size_t c = kDispatchedAt; c < kRowsAt; ++c) add(out.batches, all.counts[c]);
  for (size_t c = kRowsAt; c < kCounters; ++c) add(out.rows, all.counts[c]);
  out.queue_depth = std::move(all.gauge);
  return out;
}

}  // namespace inferkit
