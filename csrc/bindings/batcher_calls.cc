#include "bindings/batcher_calls.h"

#include <algorithm>
#include <optional>

#include "bindings/arguments.h"
#include "bindings/bound.h"
#include "bindings/context_deadline.h"
#include "bindings/guarded.h"
#include "bindings/names.h"
#include "bindings/port_vector.h"
#include "bindings/py_batcher.h"
#include "bindings/py_model.h"
#include "bindings/request_io.h"
#include "bindings/signal_watch.h"
#include "bindings/ticket.h"

namespace py = pybind11;

namespace inferkit {
namespace {

BatcherCore& core_of(PyObject* self) { return *bound<PyBatcher>(self).core; }

/// References of our own: what converts one may run Python, and that may change the dict that they came in.
struct Extras {
  py::object timeout, priority, request_id, client, tags;
};

bool take_extra(Extras& extras, PyObject* name, PyObject* object) {
  if (!PyUnicode_Check(name)) return false;
  auto value = py::reinterpret_borrow<py::object>(object);
  if (PyUnicode_CompareWithASCIIString(name, "timeout") == 0) {
    extras.timeout = std::move(value);
  } else if (PyUnicode_CompareWithASCIIString(name, "priority") == 0) {
    extras.priority = std::move(value);
  } else if (PyUnicode_CompareWithASCIIString(name, "request_id") == 0) {
    extras.request_id = std::move(value);
  } else if (PyUnicode_CompareWithASCIIString(name, "client") == 0) {
    extras.client = std::move(value);
  } else if (PyUnicode_CompareWithASCIIString(name, "tags") == 0) {
    extras.tags = std::move(value);
  } else {
    return false;
  }
  return true;
}

TagSet* tags_from(Batcher& batcher, py::handle given) {
  if (!given || given.is_none()) return nullptr;
  const auto wrong = [&] {
    return py::type_error(cat("tags must be a mapping of str to str, got ", Py_TYPE(given.ptr())->tp_name));
  };
  py::object dict;
  if (PyDict_CheckExact(given.ptr())) {
    dict = py::reinterpret_borrow<py::object>(given);
  } else {  // any other mapping; what it raises is its own
    if (!PyObject_HasAttrString(reinterpret_cast<PyObject*>(Py_TYPE(given.ptr())), "keys")) throw wrong();
    dict = py::dict(py::reinterpret_borrow<py::object>(given));
  }
  TagKey key;
  PyObject *name, *value;
  // Runs no Python, so neither the dict nor what it holds can change before the set is found.
  for (Py_ssize_t at = 0; PyDict_Next(dict.ptr(), &at, &name, &value);) {
    for (PyObject* one : {name, value}) {
      if (!PyUnicode_Check(one)) {
        throw py::type_error(cat("tags must be a mapping of str to str, got one with ", Py_TYPE(one)->tp_name));
      }
    }
    key.add(text_view(name, "the name of a tag"), text_view(value, "the value of a tag"));
  }
  return batcher.tag_set(key);
}

SubmitOptions options_from(const Batcher& batcher, const Extras& extras, Nanos now) {
  SubmitOptions options;
  options.deadline = std::min(deadline_from(extras.timeout, now, "timeout"), context_deadline(batcher.clock(), now));
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

void name_client(Batcher& batcher, const Extras& extras, SubmitOptions& options) {
  if (!extras.client || extras.client.is_none()) return;
  options.client = batcher.client(text_view(extras.client, "client"), options.tags);
}

/// Counts it where `step`, a part of what makes a request, finds that the inputs are wrong.
template <class Step>
auto count_invalid(Batcher& batcher, TagSet* tags, Step&& step) {
  try {
    return step();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kValidation) batcher.refuse_invalid(tags);
    throw;
  }
}

/// Names an input that the model's file has a default for, where one was given: the batcher's model has it not.
std::string hint_for_default(const BatcherCore& core, std::span<PyObject* const> arguments) {
  const std::shared_ptr<Model> native = py_model(core.model()).native;
  if (!native || arguments.size() != 1 || !PyDict_Check(arguments[0])) return {};
  for (const PortSpec& spec : native->defaults()) {
    if (!find_named(arguments[0], spec)) continue;
    return cat("; '", spec.name, "' has a default, which requests to a Batcher of model.with_inputs('", spec.name,
               "') may replace");
  }
  return {};
}

RequestInputs inputs_of(BatcherCore& core, std::span<PyObject* const> arguments, TagSet* tags) {
  return count_invalid(core.batcher(), tags, [&] {
    try {
      return RequestInputs(arguments, core.runner()->inputs());
    } catch (const Error& error) {
      if (error.reason() != Reason::kName) throw;
      const std::string hint = hint_for_default(core, arguments);
      if (hint.empty()) throw;
      throw Error(error.code(), error.reason(), error.what() + hint);
    }
  });
}

/// Whatever may run Python comes before this: it might change the arrays that are looked at.
Checked look_and_check(BatcherCore& core, RequestInputs& inputs, TagSet* tags) {
  Batcher& batcher = core.batcher();
  const auto now = inputs.complete() ? std::span<const PortSpec>() : py_model(core.model()).runner->inputs();
  count_invalid(batcher, tags, [&] { inputs.look(batcher.pool(), now); });
  return batcher.check(inputs.views(), tags);
}

/// Calls no Python before the run has begun.
py::object run_on_caller(BatcherCore& core, Slot& slot, const RequestInputs& inputs, const Checked& checked,
                         Nanos enqueued, const SubmitOptions& options) {
  Batcher& batcher = core.batcher();
  const auto specs = core.runner()->inputs();
  PortVector<TensorView, RequestInputs::kFew> tensors(specs.size());  // beyond which those allocate, too
  Buffer copied;
  try {
    if (inputs.in_place()) {
      batcher.scan(inputs.views(), options.tags);
    } else {
      copied = batcher.copy(inputs.views(), checked, options.tags);
    }
  } catch (...) {
    if (options.client) options.client->refused();
    throw;
  }
  for (size_t i = 0; i < specs.size(); ++i) {
    const void* data = copied ? copied.data() + checked.layout->offset(i, checked.rows) : inputs.views()[i].data;
    tensors[i] = {specs[i].dtype, checked.layout->shape(i, checked.rows), data};
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
    status = batcher.run_caller(slot, tensors.span(), checked, sink, enqueued, options);
  }
  if (watch) watch->finish();
  if (!status.ok()) throw Error(std::move(status));
  return sink.take(inputs.named());
}

py::object call(BatcherCore& core, std::span<PyObject* const> arguments, const Extras& extras) {
  core.may_block("batcher(x)");
  Batcher& batcher = core.batcher();
  TagSet* const tags = tags_from(batcher, extras.tags);
  RequestInputs inputs = inputs_of(core, arguments, tags);
  const Nanos now = batcher.clock().now();
  core.give_way(now);
  core.send_late(now);
  SubmitOptions options = options_from(batcher, extras, now);
  options.tags = tags;
  name_client(batcher, extras, options);
  const Checked checked = look_and_check(core, inputs, options.tags);
  batcher.enter(checked, options, now);
  if (options.deadline > now) {
    if (Slot slot = batcher.begin_caller_run(checked, options.deadline, now)) {
      return run_on_caller(core, slot, inputs, checked, now, options);
    }
  }
  const RequestRef request = batcher.admit(inputs.views(), checked, options);
  if (!request->parked) batcher.enqueue({&request, 1});
  if (request->by_content) core.flush();  // one that it waits for may be staged
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
  if (!core.to_be_watched(*request)) return;
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
}

/// A ticket, and its request where that was admitted: on its way, but for the queue.
struct Submission {
  py::object ticket;
  RequestRef request;
  std::shared_ptr<Stage> stage;  // of the loop
};

/// What is wrong with the call itself is thrown; what is wrong with the request is its ticket's, as every other end of
/// it is: who submits a hundred is not stopped by the third. Calls no Python once the request is admitted.
Submission make_request(BatcherCore& core, const std::shared_ptr<EventLoop>& loop, std::span<PyObject* const> arguments,
                        const Extras& extras) {
  Batcher& batcher = core.batcher();
  const Nanos now = batcher.clock().now();
  core.send_late(now);
  SubmitOptions options = options_from(batcher, extras, now);
  options.tags = tags_from(batcher, extras.tags);
  if (!options.id) options.id = batcher.new_id();  // also of a refused one: trace and ticket call it the same
  // What calls Python comes before the inputs are looked at or after the request is on its way.
  NewTicket ticket(core.self());
  std::shared_ptr<Stage> stage;
  RequestRef request;
  bool named = false;
  try {
    name_client(batcher, extras, options);
    RequestInputs inputs = inputs_of(core, arguments, options.tags);
    named = inputs.named();
    if (loop) stage = core.open_stage(loop, now);
    const Checked checked = look_and_check(core, inputs, options.tags);
    batcher.enter(checked, options, now);
    request = batcher.admit(inputs.views(), checked, options);
  } catch (const Error& error) {
    return {ticket.take(batcher.refused(error, options), named), {}, {}};
  }
  py::object taken = ticket.take(request, named);
  return {std::move(taken), std::move(request), std::move(stage)};
}

py::object submit(BatcherCore& core, std::span<PyObject* const> arguments, const Extras& extras) {
  const std::shared_ptr<EventLoop> loop = EventLoop::running();
  Submission made = make_request(core, loop, arguments, extras);
  if (!made.request) return std::move(made.ticket);
  if (loop) {
    submit_on_loop(core, *loop, *made.stage, made.request);
  } else {
    submit_on_thread(core, made.request);
  }
  return std::move(made.ticket);
}

/// The rows of each iterable, which are all there before the first is submitted.
std::vector<py::tuple> rows_of(std::span<PyObject* const> iterables) {
  if (iterables.empty()) throw py::type_error("an iterable is needed for each input of the model, or one of dicts");
  std::vector<py::tuple> columns;
  for (PyObject* iterable : iterables) {
    if (PyDict_Check(iterable)) {
      throw py::type_error("submit_many() takes an iterable for each input of the model, or one of dicts; got a dict");
    }
    columns.push_back(py::reinterpret_steal<py::tuple>(PySequence_Tuple(iterable)));
    if (!columns.back()) throw py::error_already_set();
    if (columns.back().size() != columns.front().size()) {
      throw std::invalid_argument(
          cat("the iterables must be of one length, got ", columns.front().size(), " and ", columns.back().size()));
    }
  }
  return columns;
}

/// A request for each row. Those of a thread go to the queue a full batch at a time; where the call fails, none of them
/// goes on, as nobody has the tickets.
py::object submit_many(BatcherCore& core, std::span<PyObject* const> iterables, const Extras& extras) {
  const std::vector<py::tuple> columns = rows_of(iterables);
  const std::shared_ptr<EventLoop> loop = EventLoop::running();
  py::list tickets;
  std::vector<PyObject*> row(columns.size());
  Bulk bulk(core);
  try {
    for (size_t i = 0; i < columns[0].size(); ++i) {
      for (size_t k = 0; k < row.size(); ++k) row[k] = PyTuple_GET_ITEM(columns[k].ptr(), Py_ssize_t(i));
      bulk.make_room();
      const Submission made = make_request(core, loop, row, extras);
      if (made.request && !loop && !made.request->parked) {
        bulk.add(made.request);
        if (bulk.rows() >= core.batcher().max_rows()) bulk.send();
      } else if (made.request) {
        bulk.keep(made.request);
        if (loop) {
          submit_on_loop(core, *loop, *made.stage, made.request);
        } else {
          if (made.request->phase() == Phase::kWaiting) bulk.send();  // it may wait for places that those have
          submit_on_thread(core, made.request);
        }
      }
      tickets.append(made.ticket);
      if (PyErr_CheckSignals() < 0) throw py::error_already_set();
      core.give_way(core.batcher().clock().now());
    }
  } catch (...) {
    bulk.cancel_all();
    throw;
  }
  return tickets;
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

PyObject* submit_many_method(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  Extras extras;
  for (Py_ssize_t i = 0; names && i < PyTuple_GET_SIZE(names); ++i) {
    PyObject* name = PyTuple_GET_ITEM(names, i);
    if (!take_extra(extras, name, args[count + i]) || extras.request_id) return unexpected(name, "submit_many");
  }
  return guarded(
      [&] { return submit_many(core_of(self), {args, static_cast<size_t>(count)}, extras).release().ptr(); });
}

PyMethodDef call_def = {
    "__call__", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(call_slot)), METH_VARARGS | METH_KEYWORDS,
    R"(__call__(self: inferkit._core.Batcher, *inputs: typing.Any, timeout: float | None = None, priority: int = 0, request_id: str | int | None = None, client: str | None = None, tags: collections.abc.Mapping[str, str] | None = None) -> typing.Any

Run one request and wait for its answer.

It takes and returns the same as ``submit(...).result()``, and raises what either of the two raises. If the batcher is
idle, the calling thread runs the model itself. With a ``timeout``, it does so only if earlier runs have shown that there
is enough time. Otherwise a worker runs the model, and the caller stops waiting when the time has passed. Do not call it
on the thread of an event loop, which it would block: await :meth:`submit` there.
)"};

PyMethodDef submit_def = {
    "submit", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(submit_method)), METH_FASTCALL | METH_KEYWORDS,
    R"(submit(self: inferkit._core.Batcher, *inputs: typing.Any, timeout: float | None = None, priority: int = 0, request_id: str | int | None = None, client: str | None = None, tags: collections.abc.Mapping[str, str] | None = None) -> inferkit._core.Ticket

Queue a request and return its ticket at once.

Requests that tasks of an asyncio loop submit in the same turn of the loop go to the queue together, at the end of this
turn. A request from anywhere else goes to the queue at once.

Parameters
----------
*inputs : array or dict
    One array for each input of the model, in order, or one dict of arrays by name. Either all of them have the batch
    axis, or none has it; then the request is a single row. Inputs for all rows (``TensorSpec.shared``, and those
    without dimensions) never have it.
timeout : float, optional
    Seconds after which the request ends with a :class:`DeadlineError`, if it has no answer by then. If earlier runs
    show that it cannot be answered in time, it is refused at once, or dropped before it runs. An earlier deadline of
    the context (:class:`deadline`) takes its place.
priority : int
    From -100 to 100. Requests of a higher priority go first, unless others have waited long: see `ageing` of the
    :class:`Batcher`. Of one priority, the earliest deadline goes first; requests without a timeout, or with one that is
    longer than 10 s or `ageing`, keep the order in which they came, as if they had that much.
request_id : str or int, optional
    A name for the request, which logs and traces show. By default it gets a number.
client : str, optional
    Who sends it: a user, or a part of the program. Of one priority, clients that wait are served in proportion to
    their weights, so that none is held up by how much another one sends; see `clients` of the :class:`Batcher`.
tags : mapping of str to str, optional
    What to tell requests apart by in figures and traces, such as ``{"endpoint": "search"}``: requests with the same
    tags are counted together (:attr:`BatcherStats.tags`, and as labels in :mod:`inferkit.metrics`), and those of a
    request are in its :class:`~inferkit.tracing.RequestTrace`, its log line and its span. Up to 8, with names that
    Prometheus takes for labels (64 characters at most), and values of 128 bytes at most. They should have few
    different values, as labels should; see `max_tag_sets` of the :class:`Batcher`.

Returns
-------
Ticket

    What becomes of the request, also where it is refused at once: its ``result()`` or ``await`` gives the answer or
    raises the error. So ``await asyncio.gather(*map(batcher.submit, rows), return_exceptions=True)`` has an entry for
    each row, whatever is wrong with some of them.

    - :class:`ValidationError`: the input is wrong; ``.reason`` says how.
    - :class:`QueueFullError`: the queue is full, or its client has used up its rate, or has as many places in the
      queue as are free. Where the batcher was told to wait instead, a thread waits in
      ``submit``, and a task while it awaits.
    - :class:`DeadlineError`: the timeout is not positive, or too short for what waits and runs before the request; the
      message says how long that is likely to take.
    - :class:`ClosedError`: the batcher is draining or closed.

    Where it is known when another attempt may fare better, the error's ``retry_after`` says it, in seconds.

Raises
------
TypeError, ValueError
    A keyword argument is unknown, or has a wrong type or value. ``submit`` raises no :class:`InferkitError`: what is
    wrong with the request itself arrives with the ticket.

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

PyMethodDef submit_many_def = {
    "submit_many", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(submit_many_method)),
    METH_FASTCALL | METH_KEYWORDS,
    R"(submit_many(self: inferkit._core.Batcher, *iterables: collections.abc.Iterable[typing.Any], timeout: float | None = None, priority: int = 0, client: str | None = None, tags: collections.abc.Mapping[str, str] | None = None) -> list[inferkit._core.Ticket]

Queue a request for each of many rows, and return their tickets, in the same order.

The answers, and what is refused and why, are those of as many calls of :meth:`submit`. But the requests go to the queue
a full batch at a time, so that the first one does not run alone, and the call costs less. For a stream that is longer
than the queue, or whose rows come one by one, use :meth:`map`.

Parameters
----------
*iterables : iterable
    Rows, one iterable for each input of the model, all of one length; or a single one of dicts. An array counts as its
    rows. They are read to their end before anything is queued.
timeout, priority, client, tags
    Of each request, as in :meth:`submit`.

Returns
-------
list of Ticket
    One for each row, whatever became of it.

Raises
------
TypeError, ValueError
    As :meth:`submit`, and for iterables of different lengths. Then none of the requests goes on; the same holds for
    whatever else is raised, such as ``KeyboardInterrupt``.

Examples
--------
>>> import inferkit, numpy as np
>>> model = inferkit.Model.from_callable(
...     lambda x: x * 2, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
>>> with inferkit.Batcher(model) as batcher:
...     tickets = batcher.submit_many(np.arange(6, dtype=np.float32).reshape(3, 2), timeout=10.0)
...     [ticket.result().tolist() for ticket in tickets]
[[0.0, 2.0], [4.0, 6.0], [8.0, 10.0]]
)"};

}  // namespace

void add_batcher_calls(py::handle batcher_class) {
  auto* type = reinterpret_cast<PyTypeObject*>(batcher_class.ptr());
  batcher_class.attr("submit") = py::reinterpret_steal<py::object>(PyDescr_NewMethod(type, &submit_def));
  batcher_class.attr("submit_many") = py::reinterpret_steal<py::object>(PyDescr_NewMethod(type, &submit_many_def));
  batcher_class.attr("__call__") = py::reinterpret_steal<py::object>(PyDescr_NewMethod(type, &call_def));
}

void install_batcher_call(const py::type& of) {
  auto* type = reinterpret_cast<PyTypeObject*>(of.ptr());
  if (!PyType_IsSubtype(type, reinterpret_cast<PyTypeObject*>(py::type::of<PyBatcher>().ptr()))) {
    throw std::invalid_argument("not a subclass of Batcher");
  }
  type->tp_call = call_slot;
}

}  // namespace inferkit
