#include "bindings/ticket.h"

#include <pybind11/typing.h>

#include "base/text.h"
#include "bindings/arguments.h"
#include "bindings/bound.h"
#include "bindings/cause.h"
#include "bindings/done_callback.h"
#include "bindings/errors.h"
#include "bindings/exit.h"
#include "bindings/guarded.h"
#include "bindings/native_type.h"
#include "bindings/request_io.h"
#include "bindings/timing.h"
#include "bindings/trio.h"
#include "bindings/waiter.h"

namespace py = pybind11;

namespace inferkit {
namespace {

void note_delivered(TicketObject* self) {
  Request& request = *self->request;
  if (!request.times.delivered.load(std::memory_order_relaxed)) self->core->batcher().delivered(request);
}

}  // namespace

PyObject* ticket_outcome(TicketObject* self) {
  if (self->result) return Py_NewRef(self->result);
  Request& request = *self->request;
  return guarded([&]() -> PyObject* {
    if (request.phase() != Phase::kResult) {
      note_delivered(self);
      set_exception(request.end_status(), request.retry_after);
      return nullptr;
    }
    // To make arrays may run anything, out of the garbage collector or while numpy's types are imported: this very
    // function too, and other threads. The first that is done gives the result that all get; before that, nothing has
    // changed, whatever is thrown.
    const IntrusivePtr<BatchOutputs> outputs = request.outputs;
    py::object made = copy_results(request, *outputs, self->core->runner()->outputs(), self->named);
    if (!self->result) {
      self->result = made.release().ptr();
      request.outputs = nullptr;  // the batch's memory goes as soon as it can
      note_delivered(self);
    }
    return Py_NewRef(self->result);
  });
}

namespace {

PyTypeObject* ticket_type = nullptr;
// How long a sleeping thread goes without looking for signals: one that arrives just before it falls asleep is only
// seen then.
constexpr Nanos kSignalSlice = 250'000'000;

TicketObject* as_ticket(PyObject* object) { return reinterpret_cast<TicketObject*>(object); }

TicketObject* checked_ticket(py::handle object) {
  if (!PyObject_TypeCheck(object.ptr(), ticket_type)) {
    throw py::type_error(cat("expected an inferkit.Ticket, got ", Py_TYPE(object.ptr())->tp_name));
  }
  return as_ticket(object.ptr());
}

/// Sleeps until the request has ended, without the GIL. False with an error set on a signal's exception; `*timed_out`
/// where `until` came first.
bool wait_for_end(TicketObject* self, Nanos until, bool* timed_out) {
  *timed_out = false;
  self->core->flush();
  Batcher& batcher = self->core->batcher();
  for (;;) {
    const Nanos now = SteadyClock::instance().now();
    const Nanos slice = std::min(until, now + kSignalSlice);
    Waited waited = Waited::kDone;
    PyObject* thrown = guarded([&] {
      refuse_endless_wait(*self->core->runner());
      const GilAway away(*self->core);
      waited = batcher.wait(*self->request, slice);
      return Py_None;
    });
    if (!thrown) return false;
    if (waited == Waited::kDone) return true;
    if (PyErr_CheckSignals() < 0) return false;
    if (waited == Waited::kTimedOut && slice == until) {
      *timed_out = true;
      return true;
    }
  }
}

// Ticket

/// The loop's reference keeps a ticket that is awaited, and undoes that knot.
int ticket_traverse(PyObject* object, visitproc visit, void* arg) {
  const TicketObject* self = as_ticket(object);
  Py_VISIT(Py_TYPE(object));
  Py_VISIT(self->core.ptr());
  Py_VISIT(self->result);
  if (const int stop = visit_cause(*self->request, visit, arg)) return stop;
  return visit_waiters(self, visit, arg);
}

void ticket_dealloc(PyObject* object) {
  PyObject_GC_UnTrack(object);
  TicketObject* self = as_ticket(object);
  // An error of a Python callable may die with the request, so another object's destructor may run in between.
  if (self->request) {
    self->request->owner = nullptr;
    if (self->request->done()) self->request->outputs = nullptr;
  }
  Py_CLEAR(self->result);
  self->request.~RequestRef();
  self->core.~CoreRef();
  free_gc_object(object);
}

/// The one optional argument `timeout`, by position or name.
bool parse_timeout(PyObject* const* args, Py_ssize_t count, PyObject* names, const char* function, PyObject** timeout) {
  const Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
  *timeout = Py_None;
  if (count + named > 1 ||
      (named == 1 && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "timeout") != 0)) {
    PyErr_Format(PyExc_TypeError, "%s() takes one optional argument, timeout", function);
    return false;
  }
  if (count + named == 1) *timeout = args[0];
  return true;
}

bool ended_in_time(TicketObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names, const char* function,
                   bool tells = true) {
  PyObject* timeout;
  if (!parse_timeout(args, count, names, function, &timeout)) return false;
  if (timeout == Py_None && self->request->done()) return true;
  bool timed_out = false;
  PyObject* ok = guarded([&]() -> PyObject* {
    const Nanos until = deadline_from(timeout, SteadyClock::instance().now(), "timeout");
    if (self->request->done()) return Py_None;
    if (tells && until > SteadyClock::instance().now()) self->core->may_block(cat("ticket.", function, "()"));
    return wait_for_end(self, until, &timed_out) ? Py_None : nullptr;
  });
  if (ok && timed_out) PyErr_SetString(PyExc_TimeoutError, "the request has not ended within the timeout; it goes on");
  return ok && !timed_out;
}

PyObject* ticket_result(PyObject* object, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  return ended_in_time(as_ticket(object), args, count, names, "result") ? ticket_outcome(as_ticket(object)) : nullptr;
}

PyObject* ticket_exception(PyObject* object, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  TicketObject* self = as_ticket(object);
  if (!ended_in_time(self, args, count, names, "exception")) return nullptr;
  return guarded([&] {
    const Status status = self->request->end_status();
    return status.ok() ? Py_NewRef(Py_None) : make_exception(status, self->request->retry_after).release().ptr();
  });
}

/// For those who have said already what it is that blocks.
PyObject* ticket_wait(PyObject* object, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  return ended_in_time(as_ticket(object), args, count, names, "_wait", false) ? Py_NewRef(Py_None) : nullptr;
}

PyObject* ticket_cancel(PyObject* object, PyObject*) {
  TicketObject* self = as_ticket(object);
  return guarded([&] { return PyBool_FromLong(self->core->batcher().cancel(*self->request)); });
}

PyObject* ticket_done(PyObject* object, PyObject*) {
  TicketObject* self = as_ticket(object);
  if (!self->request->done()) {
    return guarded([&] {
      self->core->flush();
      self->core->batcher().expire(*self->request, self->core->batcher().clock().now());
      return PyBool_FromLong(self->request->done());
    });
  }
  Py_RETURN_TRUE;
}

PyObject* ticket_cancelled(PyObject* object, PyObject*) {
  return PyBool_FromLong(as_ticket(object)->request->phase() == Phase::kCancelled);
}

py::object id_of(const Request& request) {
  if (request.name.empty()) return py::int_(request.id);
  return py::str(request.name);
}

PyObject* ticket_repr(PyObject* object) {
  static constexpr const char* kNames[] = {"waiting for room", "queued",    "running", "running",  "done",
                                           "failed",           "cancelled", "expired", "rejected", "closed"};
  const Request& request = *as_ticket(object)->request;
  return guarded([&] {
    return py::str(cat("<inferkit.Ticket ", request.name.empty() ? std::to_string(request.id) : quote(request.name),
                       ": ", kNames[size_t(request.phase())], ">"))
        .release()
        .ptr();
  });
}

PyObject* ticket_await(PyObject* object) {
  return guarded(
      [&]() -> PyObject* { return trio_runs() ? trio_wait(object).release().ptr() : make_waiter(as_ticket(object)); });
}

// As a coroutine that a task runs: so create_task(), which takes nothing else, takes a ticket.

PySendResult ticket_send(PyObject* object, PyObject*, PyObject** result) {
  return await_once(as_ticket(object), result);
}

PyObject* ticket_send_method(PyObject* object, PyObject*) {
  PyObject* result = nullptr;
  return as_next(await_once(as_ticket(object), &result), result);
}

/// The task will not come again.
void leave(TicketObject* self) {
  if (!self->request->done()) self->core->batcher().cancel(*self->request);
}

PyObject* ticket_throw(PyObject* object, PyObject* const* args, Py_ssize_t count) {
  if (count < 1 || count > 3) {
    PyErr_SetString(PyExc_TypeError, "throw() takes an exception, or its type, value and traceback");
    return nullptr;
  }
  leave(as_ticket(object));
  return guarded([&]() -> PyObject* {
    const py::handle error(args[0]);
    if (PyExceptionInstance_Check(error.ptr())) {
      PyErr_SetObject(PyExceptionInstance_Class(error.ptr()), error.ptr());
    } else if (PyExceptionClass_Check(error.ptr())) {
      PyErr_SetObject(error.ptr(), count > 1 ? args[1] : Py_None);
    } else {
      throw py::type_error("throw() takes an exception, or its type, value and traceback");
    }
    return nullptr;
  });
}

PyObject* ticket_close(PyObject* object, PyObject*) {
  leave(as_ticket(object));
  Py_RETURN_NONE;
}

PyObject* ticket_add_done_callback(PyObject* object, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  const Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
  if (count != 1 || named > 1 ||
      (named == 1 && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "context") != 0)) {
    PyErr_SetString(PyExc_TypeError, "add_done_callback() takes a function and, by name, a context");
    return nullptr;
  }
  return guarded([&] {
    add_done_callback(as_ticket(object), args[0], named ? args[1] : Py_None);
    return Py_NewRef(Py_None);
  });
}

PyMethodDef ticket_methods[] = {
    {"result", fast_method(ticket_result), METH_FASTCALL | METH_KEYWORDS,
     R"(result(self: inferkit._core.Ticket, timeout: float | None = None) -> typing.Any

Wait for the answer.

Do not call it on the thread of an event loop, which it would block: ``await`` the ticket there.

Parameters
----------
timeout : float, optional
    Seconds to wait. When they have passed, the request itself goes on.

Returns
-------
numpy.ndarray, or a tuple, or a dict
    One array if the model has one output, otherwise a tuple of arrays. If the inputs came as a dict, a dict of arrays
    by name. The arrays belong to the caller; every call returns the same objects.

Raises
------
TimeoutError
    There is no answer yet.
DeadlineError
    The request's own time passed.
RequestCancelledError, ClosedError, QueueFullError, OutputError, InferenceError
    How else the request ended.
)"},
    {"exception", fast_method(ticket_exception), METH_FASTCALL | METH_KEYWORDS,
     R"(exception(self: inferkit._core.Ticket, timeout: float | None = None) -> Exception | None

Wait for the end of the request, and return the error that ``result`` would raise, or None.
)"},
    {"cancel", ticket_cancel, METH_NOARGS,
     R"(cancel(self: inferkit._core.Ticket) -> bool

End the request now, if it has not ended yet. If it waits in the queue, it never runs; if it runs, its answer is dropped.

Returns
-------
bool
    Whether this call ended it.
)"},
    {"done", ticket_done, METH_NOARGS,
     "done(self: inferkit._core.Ticket) -> bool\n\nWhether the request has ended, with an answer or an error.\n"},
    {"cancelled", ticket_cancelled, METH_NOARGS,
     "cancelled(self: inferkit._core.Ticket) -> bool\n\nWhether the request was cancelled.\n"},
    {"add_done_callback", fast_method(ticket_add_done_callback), METH_FASTCALL | METH_KEYWORDS,
     R"(add_done_callback(self: inferkit._core.Ticket, fn: collections.abc.Callable[[inferkit._core.Ticket], object], *, context: contextvars.Context | None = None) -> None

Have ``fn(ticket)`` called once, when the request has ended, in whatever way.

Of a ticket that an event loop's task submitted, that loop calls it, in a turn of its own, as it calls the callbacks of
its futures; a loop that is closed calls none. Where no loop submitted it, or the request has ended already, the loop
that runs here does. Where none runs, a thread of inferkit's own calls one after the other: what takes long there holds
up the callbacks behind it, and no request. No callback runs within ``add_done_callback``, nor on a thread that runs
batches, nor once the process exits. What one raises is logged by asyncio, and nothing else.

Parameters
----------
fn : callable
    Takes the ticket.
context : contextvars.Context, optional
    To call it in; by default a copy of the present one.

Examples
--------
>>> import inferkit, numpy as np, threading
>>> model = inferkit.Model.from_callable(
...     lambda x: x + 1, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
>>> told = threading.Event()
>>> with inferkit.Batcher(model) as batcher:
...     batcher.submit(np.zeros(2, np.float32)).add_done_callback(lambda ticket: told.set())
...     told.wait(10.0)
True
)"},
    {"send", ticket_send_method, METH_O,
     R"(send(self: inferkit._core.Ticket, value: typing.Any) -> typing.Any

As of a coroutine, for ``create_task(ticket)``.
)"},
    {"throw", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(ticket_throw)), METH_FASTCALL,
     R"(throw(self: inferkit._core.Ticket, typ: typing.Any, val: typing.Any = None, tb: typing.Any = None) -> typing.Any

As of a coroutine: cancels the request, if it has not ended, and raises the exception.
)"},
    {"close", ticket_close, METH_NOARGS,
     R"(close(self: inferkit._core.Ticket) -> None

As of a coroutine: cancels the request, if it has not ended.
)"},
    {"_rejected",
     [](PyObject* self, PyObject*) { return PyBool_FromLong(as_ticket(self)->request->phase() == Phase::kRejected); },
     METH_NOARGS, "_rejected(self: inferkit._core.Ticket) -> bool\n\nWhether it was not admitted. Sends nothing.\n"},
    {"_wait", fast_method(ticket_wait), METH_FASTCALL | METH_KEYWORDS,
     "_wait(self: inferkit._core.Ticket, timeout: float | None = None) -> None\n\n"
     "Waits for the end, on whatever thread, and says nothing of it.\n"},
    // For stubs: the slots themselves carry no signature.
    {"__await__", [](PyObject* self, PyObject*) { return ticket_await(self); }, METH_NOARGS | METH_COEXIST,
     "__await__(self: inferkit._core.Ticket) -> collections.abc.Generator[typing.Any, None, typing.Any]\n\n"
     "Wait for the end of the request, without blocking the event loop, and give the answer as ``result`` does.\n"},
    {"__repr__", [](PyObject* self, PyObject*) { return ticket_repr(self); }, METH_NOARGS | METH_COEXIST,
     "__repr__(self: inferkit._core.Ticket) -> str\n"},
    {nullptr, nullptr, 0, nullptr}};

constexpr const char* kTicketDoc = R"(A request on its way: wait for it with ``result()``, or ``await`` it.

Made by :meth:`Batcher.submit`. It is safe to use from any thread. Several tasks may await it, but only tasks of one
event loop at a time. If a task is cancelled while it awaits a ticket, the request is cancelled too. If you drop a ticket,
its request runs all the same, and the answer is lost.

Tasks of trio's await it as well. To asyncio it is a coroutine that any number of tasks may run: ``gather``,
``as_completed``, ``wait_for``, ``shield`` and ``TaskGroup.create_task`` take it as it is. ``asyncio.wait`` wants tasks:
``asyncio.wait([asyncio.create_task(ticket)])``.

Examples
--------
>>> import inferkit, numpy as np
>>> model = inferkit.Model.from_callable(
...     lambda x: x + 1, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
>>> with inferkit.Batcher(model) as batcher:
...     ticket = batcher.submit(np.zeros(2, np.float32), request_id="a1")
...     answer = ticket.result()
>>> answer.tolist(), ticket.request_id, ticket.done()
([1.0, 1.0], 'a1', True)
>>> ticket.timing.finished >= ticket.timing.enqueued
True
)";

PyType_Slot ticket_slots[] = {{Py_tp_new, reinterpret_cast<void*>(refuse_new)},
                              {Py_tp_dealloc, reinterpret_cast<void*>(ticket_dealloc)},
                              {Py_tp_traverse, reinterpret_cast<void*>(ticket_traverse)},
                              {Py_tp_repr, reinterpret_cast<void*>(ticket_repr)},
                              {Py_am_await, reinterpret_cast<void*>(ticket_await)},
                              {Py_am_send, reinterpret_cast<void*>(ticket_send)},
                              {Py_tp_methods, ticket_methods},
                              {Py_tp_doc, const_cast<char*>(kTicketDoc)},
                              {0, nullptr}};
PyType_Spec ticket_spec = {"inferkit._core.Ticket", sizeof(TicketObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
                           ticket_slots};

}  // namespace

NewTicket::NewTicket(CoreRef core) {
  auto* ticket = new_gc_object<TicketObject>(ticket_type);
  new (&ticket->request) RequestRef();
  new (&ticket->core) CoreRef(std::move(core));
  ticket->named = false;
  ticket->result = nullptr;
  ticket->waiters = nullptr;
  ticket->loop = nullptr;
  ticket->awaited_next = ticket->awaited_previous = nullptr;
  ticket_ = py::reinterpret_steal<py::object>(object_of(ticket));
}

py::object NewTicket::take(RequestRef request, bool named) {
  TicketObject* ticket = as_ticket(ticket_.ptr());
  ticket->named = named;
  request->owner = ticket;
  ticket->request = std::move(request);
  PyObject_GC_Track(ticket);
  return std::move(ticket_);
}

void bind_ticket(py::module_& m) {
  bind_timing(m);
  ticket_type = make_type(ticket_spec);
  bind_waiter();
  bind_trio();
  const py::handle ticket(object_of(ticket_type));
  m.attr("Ticket") = ticket;

  // By pybind11, so that stubs know their types.
  const py::object property = py::module_::import("builtins").attr("property");
  ticket.attr("request_id") = property(py::cpp_function(
      [](py::handle self) -> py::typing::Union<py::str, py::int_> { return id_of(*checked_ticket(self)->request); },
      "The caller's id, or a number that no other request of the batcher has."));
  ticket.attr("timing") =
      property(py::cpp_function([](py::handle self) { return timing_of(*checked_ticket(self)->request); },
                                "When each stage of the request happened, and in which batch it ran."));
}

}  // namespace inferkit
