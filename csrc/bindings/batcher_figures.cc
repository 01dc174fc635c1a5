#include "bindings/batcher_figures.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <thread>

#include "bindings/dict_of.h"
#include "platform/process_memory.h"

namespace py = pybind11;

namespace inferkit {
namespace {

/// In milliseconds; with `limits`, in seconds, also how many values each of them is not exceeded by.
py::dict latency_of(const HistogramSnapshot& histogram, const std::vector<double>& limits) {
  py::dict out;
  const auto milliseconds = [](double nanos) { return nanos * 1e-6; };
  constexpr std::pair<const char*, double> kQuantiles[] = {
      {"p50", 0.5}, {"p90", 0.9}, {"p95", 0.95}, {"p99", 0.99}, {"p999", 0.999}};
  for (const auto& [name, q] : kQuantiles) out[name] = milliseconds(double(histogram.quantile(q)));
  out["max"] = milliseconds(double(histogram.max()));
  out["mean"] = milliseconds(histogram.mean());
  out["count"] = histogram.count();
  if (limits.empty()) return out;
  py::list at_most;
  for (double limit : limits) at_most.append(histogram.count_at_most(static_cast<uint64_t>(limit * 1e9)));
  out["at_most"] = at_most;
  out["sum"] = double(histogram.sum()) * 1e-9;
  return out;
}

py::dict window_of(const WindowStats& w, const std::vector<double>& limits) {
  return dict_of("seconds"_key = w.seconds, "covered"_key = w.covered, "completed"_key = w.completed,
                 "failed"_key = w.failed, "cancelled"_key = w.cancelled, "expired"_key = w.expired,
                 "rejected"_key = w.rejected, "invalid"_key = w.invalid, "unserved_rate"_key = w.unserved_rate,
                 "invalid_rate"_key = w.invalid_rate, "batches"_key = w.batches, "rows"_key = w.rows,
                 "requests_per_second"_key = w.requests_per_second, "batch_fill_rate"_key = w.batch_fill_rate,
                 "inference_error_rate"_key = w.inference_error_rate, "queue_ms"_key = latency_of(w.queue, limits),
                 "compute_ms"_key = latency_of(w.compute, limits), "total_ms"_key = latency_of(w.total, limits));
}

py::dict tags_of(const TagFigures& t) {
  py::dict out;
  for (const auto& [name, value] : t.tags) out[py::str(name)] = value;
  return out;
}

}  // namespace

Figures stats_of(const PyBatcher& self, const std::vector<double>& limits) {
  Batcher& batcher = self.core->batcher();
  self.core->send_late(batcher.clock().now());
  const Nanos staged = self.core->oldest_staged();  // they count in the queue's depth
  BatcherStats s;
  size_t rss;
  std::vector<ClientFigures> clients;
  std::vector<TagFigures> tagged;
  {
    const py::gil_scoped_release release;  // some 50 us, most of it the windows
    s = batcher.stats();
    clients = batcher.clients();
    tagged = batcher.tags();
    if (staged != kNever && s.queue_depth > 0) s.oldest_wait = std::max(s.oldest_wait, batcher.clock().now() - staged);
    rss = resident_bytes();
  }
  py::dict dispatched, dispatched_rows, refused, dropped;
  for (int i = 0; i < kDispatchReasonCount; ++i) {
    const py::str name(dispatch_reason_name(static_cast<DispatchReason>(i)));
    dispatched[name] = s.dispatched[size_t(i)];
    dispatched_rows[name] = s.dispatched_rows[size_t(i)];
  }
  for (int i = 0; i < kWhyNotCount; ++i) {
    const auto why = static_cast<WhyNot>(i);
    (is_refusal(why) ? refused : dropped)[py::str(why_not_name(why))] = s.unanswered[size_t(i)];
  }
  py::dict sizes;
  for (size_t i = 0; i < kBatchSizeBuckets; ++i) {
    if (s.batch_sizes[i]) sizes[py::int_(int64_t{1} << i)] = s.batch_sizes[i];
  }
  py::dict padding_costs;
  py::list padding_off;
  for (const auto& [length, figure] : s.padding_costs) {
    padding_costs[py::int_(length)] = figure.ratio;
    if (figure.off) padding_off.append(length);
  }
  py::dict named;
  for (const ClientFigures& c : clients) {
    named[py::str(c.name)] =
        dict_of("configured"_key = c.configured, "submitted"_key = c.submitted, "answered"_key = c.answered,
                "refused"_key = c.refused, "rows"_key = c.rows, "waiting"_key = c.waiting);
  }
  py::list tags;
  for (const TagFigures& t : tagged) {
    tags.append(dict_of("tags"_key = tags_of(t), "completed"_key = t.completed, "failed"_key = t.failed,
                        "cancelled"_key = t.cancelled, "expired"_key = t.expired, "rejected"_key = t.rejected,
                        "invalid"_key = t.invalid, "rows"_key = t.rows, "seconds"_key = double(t.nanos) * 1e-9));
  }
  const PaceFigures& p = s.pace;
  const auto in_seconds = [](Nanos nanos) { return double(nanos) * 1e-9; };
  const py::dict policy =
      dict_of("mixes"_key = batcher.runner().rows_mix(), "auto"_key = batcher.options().pace.sizes,
              "max_delay"_key = in_seconds(batcher.options().max_delay), "pays"_key = p.pays,
              "most"_key = p.pays ? p.most : batcher.max_rows(), "company"_key = in_seconds(p.company),
              "alone"_key = in_seconds(p.alone), "target"_key = in_seconds(batcher.options().pace.target),
              "delay"_key = in_seconds(p.delay), "expected"_key = in_seconds(p.expected), "kept"_key = p.kept,
              "rate"_key = p.rate, "of_paying"_key = in_seconds(p.of_paying), "of_most"_key = in_seconds(p.of_most));
  py::list windows;
  for (const WindowStats& window : s.windows) windows.append(window_of(window, limits));
  const py::dict out = dict_of(
      "state"_key = std::string(batcher.state_name()), "completed"_key = s.completed, "failed"_key = s.failed,
      "cancelled"_key = s.cancelled, "expired"_key = s.expired, "rejected"_key = s.rejected, "invalid"_key = s.invalid,
      "queue_depth"_key = s.queue_depth, "in_flight"_key = s.in_flight,
      "oldest_wait"_key = double(s.oldest_wait) * 1e-9, "longest_run"_key = double(s.longest_run) * 1e-9,
      "workers"_key = s.workers, "workers_missing"_key = s.workers_missing, "slice_ms"_key = double(s.slice) / 1e6,
      "weight"_key = s.weight, "core_seconds"_key = s.cores.seconds, "core_share"_key = s.cores.share,
      "core_waits"_key = s.cores.waits, "core_wait_seconds"_key = s.cores.wait_seconds, "batches"_key = s.batches,
      "rows"_key = s.rows, "elements"_key = s.elements, "padding"_key = s.padding, "padding_rate"_key = s.padding_rate,
      "padding_refused"_key = s.padding_refusal, "padding_costs"_key = padding_costs,
      "padding_off"_key = py::tuple(padding_off), "coalesced"_key = s.coalesced, "cache_hits"_key = s.cache.hits,
      "cache_misses"_key = s.cache.misses, "cache_evictions"_key = s.cache.evictions,
      "cache_entries"_key = s.cache.entries, "cache_bytes"_key = s.cache.bytes,
      "mean_batch_size"_key = s.mean_batch_size, "batch_fill_rate"_key = s.batch_fill_rate,
      "requests_per_second"_key = s.requests_per_second, "inference_error_rate"_key = s.inference_error_rate,
      "dispatched"_key = dispatched, "dispatched_rows"_key = dispatched_rows, "refused"_key = refused,
      "dropped"_key = dropped, "batch_sizes"_key = sizes, "queue_ms"_key = latency_of(s.queue, limits),
      "compute_ms"_key = latency_of(s.compute, limits), "total_ms"_key = latency_of(s.total, limits),
      "policy"_key = policy, "windows"_key = windows, "clients"_key = named, "tags"_key = tags,
      "pool"_key = batcher.pool().stats(), "memory_rss_bytes"_key = rss);
  return py::reinterpret_borrow<Figures>(out);
}

Figures series_of(const PyBatcher& self) {
  BatcherSeries s;
  {
    const py::gil_scoped_release release;
    s = self.core->batcher().series();
  }
  const py::dict out = dict_of("running"_key = s.running, "completed"_key = s.completed, "failed"_key = s.failed,
                               "cancelled"_key = s.cancelled, "expired"_key = s.expired, "rejected"_key = s.rejected,
                               "invalid"_key = s.invalid, "rows"_key = s.rows, "batches"_key = s.batches,
                               "queue_depth"_key = s.queue_depth);
  return py::reinterpret_borrow<Figures>(out);
}

size_t unanswered(const PyBatcher& self) {
  const py::gil_scoped_release release;
  const Batcher& batcher = self.core->batcher();
  const std::string_view state = batcher.state_name();
  if (state == "closed" || state == "forked") return 0;
  const BatcherStats stats = batcher.stats();
  if (stats.queue_depth > 0) return stats.queue_depth + stats.in_flight;
  // Callers are woken a moment before their run is over: only what lasts has callers that wait.
  for (int i = 0; i < 20 && batcher.busy(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return batcher.busy() ? std::max<size_t>(batcher.stats().in_flight, 1) : 0;
}

TraceRows trace_of(const PyBatcher& self, uint64_t after) {
  static constexpr const char* kOutcomes[] = {"completed", "failed", "cancelled", "expired", "rejected", "closed"};
  std::vector<TraceRecord> records;
  std::vector<TagFigures> tagged;
  {
    const py::gil_scoped_release release;
    records = self.core->batcher().ring().read(after);
    if (std::ranges::any_of(records, [](const TraceRecord& r) { return r.tags != 0; })) {
      tagged = self.core->batcher().tags();  // after the records: it knows the sets of all of them
    }
  }
  // One for all that have it; a tuple, which nobody can change.
  std::map<uint16_t, py::tuple> sets{{0, py::tuple()}};
  for (const TagFigures& t : tagged) sets[t.id] = py::tuple(tags_of(t).attr("items")());
  py::list out;  // grows: the garbage collector shows a list that has a size to others, and what it lacks is null
  for (const TraceRecord& r : records) {
    const std::string_view name = r.name_view();
    const std::string_view reason =
        r.reason < kDispatchReasonCount ? dispatch_reason_name(DispatchReason(r.reason))
        : r.reason >= Recorder::kFirstWhyNot && r.reason < Recorder::traced(WhyNot::kRanLate) + 1
            ? why_not_name(WhyNot(r.reason - Recorder::kFirstWhyNot))
            : std::string_view();
    out.append(py::make_tuple(
        r.sequence, r.kind == uint8_t(TraceKind::kBatch) ? "batch" : "request", r.id,
        // A name may be cut in the middle of a character.
        py::reinterpret_steal<py::str>(PyUnicode_DecodeUTF8(name.data(), Py_ssize_t(name.size()), "ignore")),
        r.batch_id, r.enqueued, r.dequeued, r.started, r.finished, r.delivered, r.thread, r.rows, r.batch_rows,
        int{r.priority}, sets[r.tags], kOutcomes[r.outcome - uint8_t(Phase::kResult)], std::string(reason)));
  }
  return py::reinterpret_steal<TraceRows>(out.release());
}

}  // namespace inferkit
