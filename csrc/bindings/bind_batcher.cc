// The Batcher class. What runs once per request speaks the C API: pybind11's argument handling would cost as much as
// a small model.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <chrono>
#include <optional>
#include <thread>

#include "bindings/arguments.h"
#include "bindings/batcher_core.h"
#include "bindings/bound.h"
#include "bindings/exit.h"
#include "bindings/guarded.h"
#include "bindings/py_model.h"
#include "bindings/request_io.h"
#include "bindings/signal_watch.h"
#include "bindings/ticket.h"
#include "platform/process_memory.h"

namespace py = pybind11;
using namespace py::literals;

namespace inferkit {
namespace {

struct PyBatcher {
  CoreRef core;
};

/// A model's callable may refer to the batcher that runs it: the garbage collector must see the arrow from here to the
/// core, and from there to the model.
void visit_core(PyHeapTypeObject* heap_type) {
  PyTypeObject* type = &heap_type->ht_type;
  type->tp_flags |= Py_TPFLAGS_HAVE_GC;
  type->tp_traverse = [](PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    if (const auto* batcher = bound_or_null<PyBatcher>(self)) Py_VISIT(batcher->core.ptr());
    return 0;
  };
  type->tp_clear = [](PyObject*) { return 0; };  // the model lets go of its callable
}

constexpr Nanos kSignalSlice = 250'000'000;
constexpr Nanos kClosingSlice = 50'000'000;  // where a signal does not end the sleep by itself

BatcherCore& core_of(PyObject* self) { return *bound<PyBatcher>(self).core; }

struct Extras {
  PyObject* timeout = nullptr;
  PyObject* priority = nullptr;
  PyObject* request_id = nullptr;
};

bool take_extra(Extras& extras, PyObject* name, PyObject* value) {
  if (!PyUnicode_Check(name)) return false;
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
  if (extras.priority) {
    options.priority = static_cast<int>(integer(extras.priority, "priority", -kMaxPriority, kMaxPriority));
  }
  if (const py::handle id = extras.request_id; id && !id.is_none()) {
    if (PyUnicode_Check(id.ptr())) {
      options.name = text(id, "request_id");
      if (options.name.empty()) throw std::invalid_argument("request_id must not be empty");
    } else if (PyIndex_Check(id.ptr())) {
      options.id = natural(id, "request_id", 1);
    } else {
      throw py::type_error(cat("request_id must be a str or an integer, got ", Py_TYPE(id.ptr())->tp_name));
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

/// Calls no Python before the run has begun.
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
  std::optional<SignalWatch> watch;
  {
    std::optional<GilAway> away;
    if (!has_gil) {
      watch.emplace();
      away.emplace(core);
    }
    status = batcher.run_caller(std::move(slot), tensors, checked, sink, enqueued, options);
  }
  if (watch) watch->finish();
  if (!status.ok()) throw Error(std::move(status));
  return sink.take(inputs.named());
}

py::object call(BatcherCore& core, std::span<PyObject* const> arguments, const Extras& extras) {
  Batcher& batcher = core.batcher();
  const RequestInputs inputs(arguments, core.runner()->inputs());
  const Checked checked = batcher.check(inputs.views());
  const Nanos now = batcher.clock().now();
  core.give_way(now);
  const SubmitOptions options = options_from(extras, now);
  if (options.deadline > now) {
    if (Slot slot = batcher.begin_caller_run(checked, options.deadline)) {
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
  return copy_results(*request, *request->outputs, core.runner()->outputs(), inputs.named());
}

/// Tells the loop of an admitted request, and has it queued at the end of the loop's tick. The two belong together with
/// the admission: no Python is called before the request is where flush() and the workers find it, so that whatever a
/// signal handler or a finalizer does, closing the batcher for one, it meets a request that is on its way. Where it
/// throws, the request has ended.
void submit_on_loop(BatcherCore& core, EventLoop& loop, Stage& stage, const RequestRef& request) {
  if (loop.alive()) request->attach(*loop.list());
  if (!request->parked) core.stage(stage, request);
  if (request->next_timeout() == kNever) return;
  try {
    loop.watch(core.weak_from_this(), request);
    loop.arm();
  } catch (...) {
    core.batcher().withdraw(*request);
    throw;
  }
}

/// The same where no loop runs: the request goes to the queue at once.
void submit_on_thread(BatcherCore& core, const RequestRef& request) {
  Batcher& batcher = core.batcher();
  if (!request->parked) return batcher.enqueue({&request, 1});
  // Full, and to wait: the caller is held back here, which is what makes it slow down.
  try {
    sleep_with_signals(core, [&](Nanos) { return batcher.wait_for_room(*request); });
  } catch (...) {
    batcher.cancel(*request);
    throw;
  }
  if (request->phase() == Phase::kRejected) throw Error(request->end_status());
}

py::object submit(BatcherCore& core, std::span<PyObject* const> arguments, const Extras& extras) {
  Batcher& batcher = core.batcher();
  const std::shared_ptr<EventLoop> loop = EventLoop::running();
  if (loop && left_behind()) hang_with_gil();  // a daemon's loop: its tasks stay where they are
  const RequestInputs inputs(arguments, core.runner()->inputs());
  const Checked checked = batcher.check(inputs.views());
  const SubmitOptions options = options_from(extras, batcher.clock().now());
  // What calls Python comes before the admission or after the request is on its way.
  const std::shared_ptr<Stage> stage = loop ? core.open_stage(loop) : nullptr;
  NewTicket ticket(core.self(), inputs.named());
  const RequestRef request = batcher.admit(inputs.views(), checked, options);
  py::object taken = ticket.take(request);
  if (loop) {
    submit_on_loop(core, *loop, *stage, request);
  } else {
    submit_on_thread(core, request);
  }
  return taken;
}

PyObject* unexpected(PyObject* name, const char* function) {
  if (!PyUnicode_Check(name)) {
    PyErr_Format(PyExc_TypeError, "%s() takes keyword arguments whose names are str", function);
    return nullptr;
  }
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

Takes, returns and raises what ``submit(...).result()`` does. With a ``timeout``, the calling thread runs the model only
where runs have shown that there is time enough: else a worker does, and the caller gives up when its time has passed.
Do not call it on an event loop's thread, which it would
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
    Seconds until the request ends with :class:`DeadlineError` if it has no answer. Where runs have shown that it cannot
    have one by then, behind those that wait or at all, it is refused at once, or dropped before it runs.
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
    The timeout is not positive, or too short for what waits and runs before the request; the message says how long
    that is likely to take.
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

Nanos until_from(py::handle timeout) {
  const Nanos left = seconds_or_never(timeout, "timeout");
  return left == kNever ? kNever : SteadyClock::instance().now() + left;
}

using Timeout = Given<std::optional<double>>;

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

bool drain(const PyBatcher& self, const Timeout& timeout) {
  const Nanos until = until_from(timeout);
  Batcher& batcher = self.core->batcher();
  begin_close(self, true);
  return sleep_until(self, until, [&](Nanos slice) { return batcher.drain(slice); });
}

bool close(const PyBatcher& self, const Given<bool>& drain, const Timeout& timeout) {
  const bool drain_first = flag(drain, "drain");
  const Nanos until = until_from(timeout);
  Batcher& batcher = self.core->batcher();
  begin_close(self, drain_first);
  if (finalizing()) return batcher.close(drain_first, 0);  // no more waiting: see refuse_endless_wait
  if (sleep_until(self, until, [&](Nanos slice) { return batcher.close(drain_first, slice); })) return true;
  batcher.refuse_all();
  batcher.end_running();
  return false;
}

bool poll_close(const PyBatcher& self, const Given<bool>& drain) {
  const bool drain_first = flag(drain, "drain");
  const py::gil_scoped_release release;
  return self.core->batcher().close(drain_first, SteadyClock::instance().now());
}

std::shared_ptr<ManualClock> clock_from(py::handle clock) {
  if (clock.is_none()) return nullptr;
  if (!py::isinstance<ManualClock>(clock)) {
    throw py::type_error(cat("clock must be a ManualClock, got ", Py_TYPE(clock.ptr())->tp_name));
  }
  bound<ManualClock>(clock.ptr());
  return py::cast<std::shared_ptr<ManualClock>>(clock);
}

}  // namespace

void bind_batcher(py::module_& m) {
  bind_batcher_core();
  bind_event_loop();
  bind_ticket(m);

  using Flag = Given<bool>;
  using Number = Given<double>;
  using Count = Given<int64_t>;

  py::class_<OutputChecks>(m, "OutputChecks")
      .def(py::init([](const Flag& finite, const Flag& not_all_zero, const Flag& shape, const Flag& normalized,
                       const Number& tolerance) {
             const double off = number(tolerance, "tolerance");
             if (off < 0) throw std::invalid_argument(cat("tolerance must not be negative, got ", off));
             return OutputChecks{flag(finite, "finite"), flag(not_all_zero, "not_all_zero"), flag(shape, "shape"),
                                 flag(normalized, "normalized"), off};
           }),
           py::kw_only(), "finite"_a, "not_all_zero"_a, "shape"_a, "normalized"_a, "tolerance"_a);

  py::class_<ManualClock, std::shared_ptr<ManualClock>>(
      m, "ManualClock", "A clock for tests: it stands still until it is told to move; then call ``_poke``.")
      .def(py::init([](const Number& start) { return std::make_shared<ManualClock>(seconds(start, "start")); }),
           "start"_a = 1.0)
      .def(
          "advance", [](ManualClock& self, const Number& by) { self.advance(seconds(by, "by")); }, "by"_a,
          "Move on, in seconds.");

  py::class_<PyBatcher> batcher(m, "Batcher", py::custom_type_setup(visit_core));
  batcher
      .def(py::init([](const py::object& model, const Count& max_batch_size, const Number& max_delay,
                       const Given<std::optional<int64_t>>& max_queue_size, const Count& workers,
                       const Given<std::optional<int64_t>>& max_concurrent, const Flag& wait_when_full,
                       const Timeout& full_timeout, const Given<std::optional<int64_t>>& max_waiting,
                       const Flag& caller_runs, const Flag& isolate_failures, const Number& inline_limit,
                       const Count& trace_size, std::optional<InputChecks> inputs, std::vector<OutputChecks> outputs,
                       const Given<std::optional<ManualClock>>& clock) {
             const PyModel& of = py_model(model);
             constexpr int64_t kMost = std::numeric_limits<int>::max();
             BatcherOptions options;
             options.max_batch_size = integer(max_batch_size, "max_batch_size", 1);
             options.max_delay = seconds(max_delay, "max_delay");
             options.max_queue_size = static_cast<size_t>(integer_or(0, max_queue_size, "max_queue_size", 1));
             options.workers = static_cast<int>(integer(workers, "workers", 1, 1024));
             options.max_concurrent = static_cast<int>(integer_or(0, max_concurrent, "max_concurrent", 1, kMost));
             options.wait_when_full = flag(wait_when_full, "wait_when_full");
             options.full_timeout = seconds_or_never(full_timeout, "full_timeout");
             options.max_waiting = static_cast<size_t>(integer_or(0, max_waiting, "max_waiting", 1));
             options.caller_runs = flag(caller_runs, "caller_runs");
             options.isolate_failures = flag(isolate_failures, "isolate_failures");
             options.inline_limit = seconds(inline_limit, "inline_limit");
             options.trace_size = static_cast<size_t>(integer(trace_size, "trace_size", 0, int64_t{1} << 24));
             options.inputs = inputs ? *inputs : of.checks;
             options.outputs = std::move(outputs);
             return PyBatcher{BatcherCore::make(model, std::move(options), clock_from(clock))};
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
      .def(
          "_begin_close",
          [](const PyBatcher& self, const Given<bool>& drain) { begin_close(self, flag(drain, "drain")); }, "drain"_a)
      .def("_unanswered", &unanswered)
      .def_property_readonly("_closed", [](const PyBatcher& self) { return self.core->batcher().closed(); })
      .def_property_readonly("_max_rows", [](const PyBatcher& self) { return self.core->batcher().max_rows(); });

  require_init<OutputChecks>();
  require_init<ManualClock>();
  require_init<PyBatcher>();

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
