#include "batching/recorder.h"

namespace inferkit {

void Recorder::ended(Phase end, Nanos now) {
  ends_[index(end)].add();
  if (end == Phase::kResult) rate_.add(now);
}

void Recorder::batch(DispatchReason reason, int64_t rows) {
  dispatched_[size_t(reason)].add();
  rows_.add(static_cast<uint64_t>(rows));
}

void Recorder::latency(Nanos enqueued, Nanos started, Nanos finished) {
  queue_.record(started - enqueued);
  compute_.record(finished - started);
  total_.record(finished - enqueued);
}

void Recorder::fill(BatcherStats& s, int64_t max_rows, Nanos now) const {
  s.completed = ends_[index(Phase::kResult)].value();
  s.failed = ends_[index(Phase::kError)].value();
  s.cancelled = ends_[index(Phase::kCancelled)].value();
  s.expired = ends_[index(Phase::kExpired)].value();
  s.rejected = ends_[index(Phase::kRejected)].value() + ends_[index(Phase::kClosed)].value();
  s.invalid = invalid_.value();
  for (size_t i = 0; i < s.dispatched.size(); ++i) s.batches += s.dispatched[i] = dispatched_[i].value();
  s.rows = rows_.value();
  if (s.batches) {
    s.mean_batch_size = double(s.rows) / double(s.batches);
    s.batch_fill_rate = s.mean_batch_size / double(max_rows);
  }
  if (const uint64_t ran = s.completed + s.failed) s.inference_error_rate = double(s.failed) / double(ran);
  s.requests_per_second = rate_.per_second(now);
  s.queue = queue_.snapshot();
  s.compute = compute_.snapshot();
  s.total = total_.snapshot();
}

}  // namespace inferkit
