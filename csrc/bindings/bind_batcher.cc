// The Batcher class. What runs once per request speaks the C API: pybind11's argument handling would cost as much as
// a small model.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <chrono>
#include <optional>
#include <thread>

#include "bindings/batcher_core.h"
#include "bindings/exit.h"
#include "bindings/guarded.h"
#include "bindings/py_model.h"
#include "bindings/request_io.h"
#include "bindings/ticket.h"
#include "platform/process_memory.h"

namespace py = pybind11;
using namespace py::literals;

namespace inferkit {
namespace {

struct PyBatcher {
  std::shared_ptr<BatcherCore> core;
};

/// A model's callable may refer to the batcher that runs it: the garbage collector must see the arrow from here to the
/// model. Not while tickets or a tick of a loop share the core, though: what they wait for must stay.
void visit_model(PyHeapTypeObject* heap_type) {
  PyTypeObject* type = &heap_type->ht_type;
  type->tp_flags |= Py_TPFLAGS_HAVE_GC;
  type->tp_traverse = [](PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    if (!py::detail::is_holder_constructed(self)) return 0;
    auto* instance = reinterpret_cast<py::detail::instance*>(self);
    const auto* batcher = static_cast<PyBatcher*>(instance->get_value_and_holder().value_ptr());
    if (batcher->core.use_count() == 1) Py_VISIT(batcher->core->model().ptr());
    return 0;
  };
  type->tp_clear = [](PyObject*) { return 0; };  // the model lets go of its callable
}

constexpr Nanos kSignalSlice = 250'000'000;
constexpr Nanos kClosingSlice = 50'000'000;  // where a signal does not end the sleep by itself

BatcherCore& core_of(PyObject* self) {
  auto* instance = reinterpret_cast<py::detail::instance*>(self);
  const auto* batcher = static_cast<PyBatcher*>(instance->get_value_and_holder().value_ptr());
  if (!batcher) throw py::type_error("Batcher.__init__() was not called");
  return *batcher->core;
}

struct Extras {
  PyObject* timeout = nullptr;
  PyObject* priority = nullptr;
  PyObject* request_id = nullptr;
};

bool take_extra(Extras& extras, PyObject* name, PyObject* value) {
  if (PyUnicode_CompareWithASCIIString(name, "timeout") == 0) {
    extras.timeout = value;
  } else if (PyUnicode_CompareWithASCIIString(name, "priority") == 0) {
    extras.priority = value;
  } else if (PyUnicode_CompareWithASCIIString(name, "request_id") == 0) {
    extras.request_id = value;
  } else {
    return false;
  }
  return true;
}

SubmitOptions options_from(const Extras& extras, Nanos now) {
  SubmitOptions options;
  options.deadline = deadline_from(extras.timeout, now, "timeout");
  if (extras.priority) options.priority = py::cast<int>(py::handle(extras.priority));
  if (extras.request_id && extras.request_id != Py_None) {
    if (PyUnicode_Check(extras.request_id)) {
      options.name = py::cast<std::string>(py::handle(extras.request_id));
      if (options.name.empty()) throw std::invalid_argument("request_id must not be empty");
    } else {
      options.id = py::cast<uint64_t>(py::handle(extras.request_id));
      if (options.id == 0) throw std::invalid_argument("request_id must not be 0");
    }
  }
  return options;
}

/// Sleeps without the GIL in slices, so that a signal that came a moment too early is seen all the same. Throws what a
/// signal handler raises.
template <class Wait>
void sleep_with_signals(BatcherCore& core, Wait&& wait_until, Nanos slice = kSignalSlice) {
  for (;;) {
    Waited waited;
    {
      const GilAway away(core);
      waited = wait_until(SteadyClock::instance().now() + slice);
    }
    if (PyErr_CheckSignals() < 0) throw py::error_already_set();
    if (waited == Waited::kDone) return;
    refuse_endless_wait(*core.runner());
  }
}

py::object run_on_caller(BatcherCore& core, Slot slot, const RequestInputs& inputs, const Checked& checked,
                         Nanos enqueued, const SubmitOptions& options) {
  Batcher& batcher = core.batcher();
  const auto specs = core.runner()->inputs();
  std::array<TensorView, 8> few;
  std::vector<TensorView> many(specs.size() > few.size() ? specs.size() : 0);
  const std::span<TensorView> tensors = many.empty() ? std::span(few).first(specs.size()) : std::span(many);
  Buffer copied;
  if (inputs.in_place()) {
    batcher.scan(inputs.views());
  } else {
    copied = batcher.copy(inputs.views(), checked);
  }
  for (size_t i = 0; i < specs.size(); ++i) {
    Shape shape = checked.layout->rows[i];
    shape.insert(0, checked.rows);
    const void* data = copied ? copied.data() + checked.layout->offset(i, checked.rows) : inputs.views()[i].data;
    tensors[i] = {specs[i].dtype, shape, data};
  }
  const bool has_gil = core.keeps_gil(batcher.predict(*checked.layout, checked.rows));
  ArraySink sink(core.runner()->outputs(), batcher.pool(), checked.single_row, has_gil);
  Status status;
  {
    std::optional<GilAway> away;
    if (!has_gil) away.emplace(core);
    status = batcher.run_caller(std::move(slot), tensors, checked, sink, enqueued, options);
  }
  if (!status.ok()) throw Error(std::move(status));
  return sink.take(inputs.named());
}

py::object call(BatcherCore& core, std::span<PyObject* const> arguments, const Extras& extras) {
  Batcher& batcher = core.batcher();
  const RequestInputs inputs(arguments, core.runner()->inputs());
  const Checked checked = batcher.check(inputs.views());
  const Nanos now = batcher.clock().now();
  core.give_way(now);
  SubmitOptions options = options_from(extras, now);
  if (options.deadline > now) {
    if (Slot slot = batcher.begin_caller_run(checked.rows)) {
      return run_on_caller(core, std::move(slot), inputs, checked, now, options);
    }
  }
  const RequestRef request = batcher.admit(inputs.views(), checked, options);
  if (!request->parked) batcher.enqueue({&request, 1});
  try {
    sleep_with_signals(core, [&](Nanos until) { return batcher.wait(*request, until); });
  } catch (...) {
    batcher.cancel(*request);  // interrupted: nobody will come for the answer
    throw;
  }
  batcher.delivered(*request);
  if (Status status = request->end_status(); !status.ok()) throw Error(std::move(status));
  const IntrusivePtr<BatchOutputs> outputs = std::move(request->outputs);
  return copy_results(*request, *outputs, core.runner()->outputs(), inputs.named());
}

py::object submit(BatcherCore& core, std::span<PyObject* const> arguments, const Extras& extras) {
  Batcher& batcher = core.batcher();
  EventLoop* loop = EventLoop::running();
  if (loop && left_behind()) hang_with_gil();  // a daemon's loop: its tasks stay where they are
  const RequestInputs inputs(arguments, core.runner()->inputs());
  const Checked checked = batcher.check(inputs.views());
  const SubmitOptions options = options_from(extras, batcher.clock().now());
  const RequestRef request = batcher.admit(inputs.views(), checked, options);
  py::object ticket = make_ticket(core.shared_from_this(), request, inputs.named());
  if (loop) {
    request->attach(loop->list());
    if (request->next_timeout() != kNever) loop->watch(core.weak_from_this(), request);
    if (!request->parked) core.stage(*loop, request);
  } else if (!request->parked) {
    batcher.enqueue({&request, 1});
  } else {
    // Full, and to wait: the caller is held back here, which is what makes it slow down.
    try {
      sleep_with_signals(core, [&](Nanos) { return batcher.wait_for_room(*request); });
    } catch (...) {
      batcher.cancel(*request);
      throw;
    }
    if (request->phase() == Phase::kRejected) throw Error(request->end_status());
  }
  return ticket;
}

PyObject* unexpected(PyObject* name, const char* function) {
  PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'; inputs by name come as one dict",
               function, name);
  return nullptr;
}

PyObject* call_slot(PyObject* self, PyObject* args, PyObject* kwargs) {
  Extras extras;
  if (kwargs) {
    PyObject *name, *value;
    for (Py_ssize_t at = 0; PyDict_Next(kwargs, &at, &name, &value);) {
      if (!take_extra(extras, name, value)) return unexpected(name, "Batcher");
    }
  }
  PyObject** items = reinterpret_cast<PyTupleObject*>(args)->ob_item;
  return guarded([&] {
    return call(core_of(self), {items, static_cast<size_t>(PyTuple_GET_SIZE(args))}, extras).release().ptr();
  });
}

PyObject* submit_method(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  Extras extras;
  for (Py_ssize_t i = 0; names && i < PyTuple_GET_SIZE(names); ++i) {
    PyObject* name = PyTuple_GET_ITEM(names, i);
    if (!take_extra(extras, name, args[count + i])) return unexpected(name, "submit");
  }
  return guarded([&] { return submit(core_of(self), {args, static_cast<size_t>(count)}, extras).release().ptr(); });
}

PyMethodDef call_def = {
    "__call__", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(call_slot)), METH_VARARGS | METH_KEYWORDS,
    R"(__call__(self: inferkit._core.Batcher, *inputs: typing.Any, timeout: float | None = None, priority: int = 0, request_id: str | int | None = None) -> typing.Any

Run one request and wait for its answer; on the calling thread, where the batcher is idle.

Takes, returns and raises what ``submit(...).result()`` does. Do not call it on an event loop's thread, which it would
block.
)"};

PyMethodDef submit_def = {
    "submit", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(submit_method)), METH_FASTCALL | METH_KEYWORDS,
    R"(submit(self: inferkit._core.Batcher, *inputs: typing.Any, timeout: float | None = None, priority: int = 0, request_id: str | int | None = None) -> inferkit._core.Ticket

Queue a request and return its ticket at once.

Called by a task of a running asyncio loop, it joins what all tasks of that loop submit in the same tick: they go to the
queue together, when the loop turns. Called elsewhere, it goes to the queue now.

Parameters
----------
*inputs : array or dict
    One array for each input of the model, in order, or one dict of arrays by name. All with the batch axis, or all
    without it, which makes a single row.
timeout : float, optional
    Seconds until the request ends with :class:`DeadlineError` if it has no answer.
priority : int
    Between -100 and 100; higher goes first.
request_id : str or int, optional
    Names the request; by default it gets a number.

Returns
-------
Ticket

Raises
------
ValidationError
    The input is wrong; ``.reason`` says how.
QueueFullError
    The queue is full. Where the batcher was told to wait instead, a thread waits here, and a task while it awaits.
DeadlineError
    The timeout is not positive.
ClosedError
    The batcher is draining or closed.

Examples
--------
>>> import inferkit, numpy as np
>>> model = inferkit.Model.from_callable(
...     lambda x: x * 2, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
>>> with inferkit.Batcher(model) as batcher:
...     tickets = [batcher.submit(np.full(2, i, np.float32), timeout=10.0) for i in range(3)]
...     [ticket.result().tolist() for ticket in tickets]
[[0.0, 0.0], [2.0, 2.0], [4.0, 4.0]]
)"};

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
  return py::dict("seconds"_a = w.seconds, "covered"_a = w.covered, "completed"_a = w.completed, "failed"_a = w.failed,
                  "cancelled"_a = w.cancelled, "expired"_a = w.expired, "rejected"_a = w.rejected,
                  "invalid"_a = w.invalid, "unserved_rate"_a = w.unserved_rate, "invalid_rate"_a = w.invalid_rate,
                  "batches"_a = w.batches, "rows"_a = w.rows, "requests_per_second"_a = w.requests_per_second,
                  "batch_fill_rate"_a = w.batch_fill_rate, "inference_error_rate"_a = w.inference_error_rate,
                  "queue_ms"_a = latency_of(w.queue, limits), "compute_ms"_a = latency_of(w.compute, limits),
                  "total_ms"_a = latency_of(w.total, limits));
}

py::typing::Dict<py::str, py::object> stats_of(const PyBatcher& self, const std::vector<double>& limits) {
  Batcher& batcher = self.core->batcher();
  BatcherStats s;
  size_t rss;
  {
    const py::gil_scoped_release release;  // some 50 us, most of it the windows
    s = batcher.stats();
    rss = resident_bytes();
  }
  py::dict dispatched;
  for (int i = 0; i < kDispatchReasonCount; ++i) {
    dispatched[std::string(dispatch_reason_name(static_cast<DispatchReason>(i))).c_str()] = s.dispatched[size_t(i)];
  }
  py::dict sizes;
  for (size_t i = 0; i < kBatchSizeBuckets; ++i) {
    if (s.batch_sizes[i]) sizes[py::int_(int64_t{1} << i)] = s.batch_sizes[i];
  }
  py::list windows;
  for (const WindowStats& window : s.windows) windows.append(window_of(window, limits));
  const py::dict out("state"_a = std::string(batcher.state_name()), "completed"_a = s.completed, "failed"_a = s.failed,
                     "cancelled"_a = s.cancelled, "expired"_a = s.expired, "rejected"_a = s.rejected,
                     "invalid"_a = s.invalid, "queue_depth"_a = s.queue_depth, "in_flight"_a = s.in_flight,
                     "oldest_wait"_a = double(s.oldest_wait) * 1e-9, "longest_run"_a = double(s.longest_run) * 1e-9,
                     "batches"_a = s.batches, "rows"_a = s.rows, "mean_batch_size"_a = s.mean_batch_size,
                     "batch_fill_rate"_a = s.batch_fill_rate, "requests_per_second"_a = s.requests_per_second,
                     "inference_error_rate"_a = s.inference_error_rate, "dispatched"_a = dispatched,
                     "batch_sizes"_a = sizes, "queue_ms"_a = latency_of(s.queue, limits),
                     "compute_ms"_a = latency_of(s.compute, limits), "total_ms"_a = latency_of(s.total, limits),
                     "windows"_a = windows, "pool"_a = batcher.pool().stats(), "memory_rss_bytes"_a = rss);
  return py::reinterpret_borrow<py::typing::Dict<py::str, py::object>>(out);
}

py::typing::Dict<py::str, py::object> series_of(const PyBatcher& self) {
  BatcherSeries s;
  {
    const py::gil_scoped_release release;
    s = self.core->batcher().series();
  }
  const py::dict out("running"_a = s.running, "completed"_a = s.completed, "failed"_a = s.failed,
                     "cancelled"_a = s.cancelled, "expired"_a = s.expired, "rejected"_a = s.rejected,
                     "invalid"_a = s.invalid, "rows"_a = s.rows, "batches"_a = s.batches,
                     "queue_depth"_a = s.queue_depth);
  return py::reinterpret_borrow<py::typing::Dict<py::str, py::object>>(out);
}

/// How many requests have no answer while nobody has closed the batcher: what is lost with it, for a warning. At least;
/// a run counts as one.
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

constexpr const char* kTraceDoc =
    R"(The trace's records after number ``after``: (sequence, kind, id, name, batch_id, enqueued, dequeued, started, finished,
delivered, thread, rows, batch_rows, outcome, reason). Times are nanoseconds, 0 for what has not happened.)";

using TraceRows = py::typing::List<py::typing::Tuple<py::object, py::ellipsis>>;

TraceRows trace_of(const PyBatcher& self, uint64_t after) {
  static constexpr const char* kOutcomes[] = {"completed", "failed", "cancelled", "expired", "rejected", "closed"};
  std::vector<TraceRecord> records;
  {
    const py::gil_scoped_release release;
    records = self.core->batcher().ring().read(after);
  }
  py::list out(records.size());
  for (size_t i = 0; i < records.size(); ++i) {
    const TraceRecord& r = records[i];
    const std::string_view name = r.name_view();
    const std::string_view reason =
        r.reason < kDispatchReasonCount ? dispatch_reason_name(DispatchReason(r.reason)) : std::string_view();
    out[i] = py::make_tuple(
        r.sequence, r.kind == uint8_t(TraceKind::kBatch) ? "batch" : "request", r.id,
        // A name may be cut in the middle of a character.
        py::reinterpret_steal<py::str>(PyUnicode_DecodeUTF8(name.data(), Py_ssize_t(name.size()), "ignore")),
        r.batch_id, r.enqueued, r.dequeued, r.started, r.finished, r.delivered, r.thread, r.rows, r.batch_rows,
        kOutcomes[r.outcome - uint8_t(Phase::kResult)], std::string(reason));
  }
  return py::reinterpret_steal<TraceRows>(out.release());
}

Nanos nanos(double seconds, const char* name) {
  if (!(seconds >= 0))
    throw std::invalid_argument(cat(name, " must be a number of seconds that is not negative, got ", seconds));
  return seconds > 1e9 ? kNever : static_cast<Nanos>(seconds * 1e9);
}

Nanos until_from(std::optional<double> timeout) {
  return timeout ? SteadyClock::instance().now() + nanos(std::min(*timeout, 1e9), "timeout") : kNever;
}

/// What does not sleep of closing: admits nothing more, and queues what the event loops have staged, or ends it.
void begin_close(const PyBatcher& self, bool drain_first) {
  EventLoop::forget_closed();
  Batcher& batcher = self.core->batcher();
  if (drain_first) {
    batcher.begin_drain();
  } else {
    batcher.stop_admitting();
  }
  self.core->flush();
  if (!drain_first) batcher.refuse_all();
}

/// Whether `done(until)`, which sleeps until it is or `until` comes, came true before `until`. Hears signals.
template <class Done>
bool sleep_until(const PyBatcher& self, Nanos until, Done&& done) {
  bool is_done = false;
  sleep_with_signals(
      *self.core,
      [&](Nanos slice) {
        is_done = done(std::min(until, slice));
        return is_done || until <= slice ? Waited::kDone : Waited::kTimedOut;
      },
      kClosingSlice);
  return is_done;
}

bool drain(const PyBatcher& self, std::optional<double> timeout) {
  const Nanos until = until_from(timeout);
  Batcher& batcher = self.core->batcher();
  begin_close(self, true);
  return sleep_until(self, until, [&](Nanos slice) { return batcher.drain(slice); });
}

bool close(const PyBatcher& self, bool drain_first, std::optional<double> timeout) {
  const Nanos until = until_from(timeout);
  Batcher& batcher = self.core->batcher();
  begin_close(self, drain_first);
  if (finalizing()) return batcher.close(drain_first, 0);  // no more waiting: see refuse_endless_wait
  if (sleep_until(self, until, [&](Nanos slice) { return batcher.close(drain_first, slice); })) return true;
  batcher.refuse_all();
  batcher.end_running();
  return false;
}

bool poll_close(const PyBatcher& self, bool drain_first) {
  const py::gil_scoped_release release;
  return self.core->batcher().close(drain_first, SteadyClock::instance().now());
}

}  // namespace

void bind_batcher(py::module_& m) {
  bind_ticket(m);

  py::class_<OutputChecks>(m, "OutputChecks")
      .def(py::init([](bool finite, bool not_all_zero, bool shape, bool normalized, double tolerance) {
             return OutputChecks{finite, not_all_zero, shape, normalized, tolerance};
           }),
           py::kw_only(), "finite"_a, "not_all_zero"_a, "shape"_a, "normalized"_a, "tolerance"_a);

  py::class_<ManualClock, std::shared_ptr<ManualClock>>(
      m, "ManualClock", "A clock for tests: it stands still until it is told to move; then call ``_poke``.")
      .def(py::init([](double start) { return std::make_shared<ManualClock>(nanos(start, "start")); }), "start"_a = 1.0)
      .def(
          "advance", [](ManualClock& self, double by) { self.advance(nanos(by, "by")); }, "by"_a,
          "Move on, in seconds.");

  py::class_<PyBatcher> batcher(m, "Batcher", py::custom_type_setup(visit_model));
  batcher
      .def(py::init([](const py::object& model, int64_t max_batch_size, double max_delay, size_t max_queue_size,
                       int workers, int max_concurrent, bool wait_when_full, std::optional<double> full_timeout,
                       size_t max_waiting, bool caller_runs, bool isolate_failures, double inline_limit,
                       size_t trace_size, std::optional<InputChecks> inputs, std::vector<OutputChecks> outputs,
                       std::optional<std::shared_ptr<ManualClock>> clock) {
             const PyModel& of = py_model(model);
             BatcherOptions options;
             options.max_batch_size = max_batch_size;
             options.max_delay = nanos(max_delay, "max_delay");
             options.max_queue_size = max_queue_size;
             options.workers = workers;
             options.max_concurrent = max_concurrent;
             options.wait_when_full = wait_when_full;
             if (full_timeout) options.full_timeout = nanos(*full_timeout, "full_timeout");
             options.max_waiting = max_waiting;
             options.caller_runs = caller_runs;
             options.isolate_failures = isolate_failures;
             options.inline_limit = nanos(inline_limit, "inline_limit");
             options.trace_size = trace_size;
             options.inputs = inputs ? *inputs : of.checks;
             options.outputs = std::move(outputs);
             return PyBatcher{BatcherCore::make(model, std::move(options), clock.value_or(nullptr))};
           }),
           "model"_a, py::kw_only(), "max_batch_size"_a, "max_delay"_a, "max_queue_size"_a, "workers"_a,
           "max_concurrent"_a, "wait_when_full"_a, "full_timeout"_a, "max_waiting"_a, "caller_runs"_a,
           "isolate_failures"_a, "inline_limit"_a, "trace_size"_a, "inputs"_a, "outputs"_a, "clock"_a = py::none())
      .def("_stats", &stats_of, "limits"_a = std::vector<double>())
      .def(
          "_series", &series_of,
          "What ended in each of the last 300 whole seconds and the one that runs, oldest first: a list for each kind; "
          "``queue_depth`` is that of each second's end, ``running`` how much of the last one has passed.")
      .def("_trace", &trace_of, "after"_a, kTraceDoc)
      .def(
          "_set_tracing", [](const PyBatcher& self, bool on) { self.core->batcher().ring().set_enabled(on); }, "on"_a)
      .def_property_readonly("_tracing", [](const PyBatcher& self) { return self.core->batcher().ring().enabled(); })
      .def_property_readonly("_trace_dropped",
                             [](const PyBatcher& self) { return self.core->batcher().ring().dropped(); })
      .def("_poke", [](const PyBatcher& self) { self.core->batcher().poke(); })
      .def_property_readonly("_state",
                             [](const PyBatcher& self) { return std::string(self.core->batcher().state_name()); })
      .def("_drain", &drain, "timeout"_a)
      .def("_close", &close, "drain"_a, "timeout"_a)
      .def("_poll_close", &poll_close, "drain"_a)
      .def("_begin_close", &begin_close, "drain"_a)
      .def("_unanswered", &unanswered)
      .def_property_readonly("_closed", [](const PyBatcher& self) { return self.core->batcher().closed(); })
      .def_property_readonly("_max_rows", [](const PyBatcher& self) { return self.core->batcher().max_rows(); });

  auto* type = reinterpret_cast<PyTypeObject*>(batcher.ptr());
  batcher.attr("submit") = py::reinterpret_steal<py::object>(PyDescr_NewMethod(type, &submit_def));
  batcher.attr("__call__") = py::reinterpret_steal<py::object>(PyDescr_NewMethod(type, &call_def));
  m.def("begin_exit", &begin_exit,
        "The interpreter exits: what closing batchers ends is from now on the exit's doing.");
  m.def(
      "install_batcher_call",
      [](const py::type& of) {
        if (!PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(of.ptr()),
                              reinterpret_cast<PyTypeObject*>(py::type::of<PyBatcher>().ptr()))) {
          throw std::invalid_argument("not a subclass of Batcher");
        }
        reinterpret_cast<PyTypeObject*>(of.ptr())->tp_call = call_slot;
      },
      "Gives a subclass of Batcher, which does not override __call__, the direct call slot.");
}

}  // namespace inferkit
