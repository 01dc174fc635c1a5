#include "bindings/waiter.h"

#include "bindings/guarded.h"

namespace py = pybind11;

namespace inferkit {

/// What a task awaits: an iterator for `await`, a future for asyncio's Task, which asks for no more than these methods.
/// It goes back to the task's own wake-up, so a Future, its callbacks and a call_soon for each are saved.
struct WaiterObject {
  PyObject ob_base;
  TicketObject* ticket;  // owned
  WaiterObject* next;    // in ticket->waiters
  PyObject* callback;    // the task's, with its context; owned
  PyObject* context;
  PyObject* message;  // of cancel()
  char blocking;      // asyncio's handshake: this was yielded, not some other object
  bool plain;         // no task's: the callback takes the ticket, and is only called by the loop itself
  bool suspended;
  bool woken;  // the callback has been called, which happens once, however often it was asked for
};

namespace {

PyTypeObject* waiter_type = nullptr;
PyObject *self_name = nullptr, *fut_waiter_name = nullptr;  // interned: where they are used, there may be no memory

WaiterObject* as_waiter(PyObject* object) { return reinterpret_cast<WaiterObject*>(object); }

PyObject* asyncio_cancelled_error() {
  // Not initialised where it is declared: an import gives up the GIL, and the guard of the static must not be held
  // then.
  static PyObject* type = nullptr;
  if (!type) {
    PyObject* found = py::object(py::module_::import("asyncio").attr("CancelledError")).release().ptr();
    if (!type) type = found;
  }
  return type;
}

/// As ticket_outcome, but cancellation is asyncio's.
PyObject* outcome(TicketObject* ticket) {
  if (ticket->request->phase() != Phase::kCancelled) return ticket_outcome(ticket);
  return guarded([]() -> PyObject* {
    PyErr_SetNone(asyncio_cancelled_error());
    return nullptr;
  });
}

int waiter_traverse(PyObject* object, visitproc visit, void* arg) {
  const WaiterObject* self = as_waiter(object);
  Py_VISIT(Py_TYPE(object));
  Py_VISIT(object_of(self->ticket));
  Py_VISIT(self->callback);
  Py_VISIT(self->context);
  Py_VISIT(self->message);
  return 0;
}

/// All but the ticket, which methods count on.
int waiter_clear(PyObject* object) {
  WaiterObject* self = as_waiter(object);
  Py_CLEAR(self->callback);
  Py_CLEAR(self->context);
  Py_CLEAR(self->message);
  return 0;
}

void waiter_dealloc(PyObject* object) {
  PyObject_GC_UnTrack(object);
  waiter_clear(object);
  PyObject* ticket = object_of(as_waiter(object)->ticket);
  free_gc_object(object);
  Py_DECREF(ticket);
}

/// Among those that its ticket wakes, until take_waiters().
void link(WaiterObject* self, EventLoop& loop) {
  TicketObject* ticket = self->ticket;
  if (!ticket->waiters) {
    ticket->loop = &loop;
    loop.add_awaited(ticket);
  }
  self->next = ticket->waiters;
  ticket->waiters = as_waiter(Py_NewRef(object_of(self)));
}

/// Lets the running loop learn of the end. False with an error set; true also where the request has ended meanwhile.
bool suspend(WaiterObject* self) {
  TicketObject* ticket = self->ticket;
  return guarded([&]() -> PyObject* {
           const auto loop = EventLoop::running();  // calls Python; until all is linked, nothing below does
           if (!loop || !loop->alive()) {
             throw std::logic_error("a ticket can be awaited under asyncio and trio only; elsewhere call .result()");
           }
           if (ticket->request->done()) return Py_None;
           bool watched = true;
           if (self->suspended) throw std::logic_error("the ticket is being awaited already");
           if (!ticket->request->attached_to(*loop->list())) {
             if (!ticket->request->attach(*loop->list())) {
               if (ticket->request->done()) return Py_None;
               throw std::logic_error("the ticket belongs to another event loop: it was submitted there, or awaited");
             }
             watched = !ticket->core->to_be_watched(*ticket->request);
             if (!watched) loop->watch(ticket->core->weak_from_this(), ticket->request);
           }
           link(self, *loop);
           self->suspended = true;
           self->blocking = 1;
           if (!watched) loop->arm();  // no thread waits for it any more that would see its time pass
           return Py_None;
         }) != nullptr;
}

/// One step of the iterator: yields itself while the request has not ended.
PySendResult waiter_send(PyObject* object, PyObject*, PyObject** result) {
  WaiterObject* self = as_waiter(object);
  if (!self->ticket->request->done()) {
    if (self->suspended) {
      PyErr_SetString(PyExc_RuntimeError, "a ticket was resumed before its request had ended");
      *result = nullptr;
      return PYGEN_ERROR;
    }
    if (!suspend(self)) {
      *result = nullptr;
      return PYGEN_ERROR;
    }
    if (self->suspended) {
      *result = Py_NewRef(object);
      return PYGEN_NEXT;
    }
  }
  *result = outcome(self->ticket);
  return *result ? PYGEN_RETURN : PYGEN_ERROR;
}

PyObject* waiter_next(PyObject* object) {
  PyObject* result = nullptr;
  const PySendResult sent = waiter_send(object, Py_None, &result);
  return as_next(sent, result);
}

PyObject* waiter_send_method(PyObject* object, PyObject*) { return waiter_next(object); }

/// What the task asks when it wakes up: only whether to go on or to raise; the value is fetched by the next step.
PyObject* waiter_result(PyObject* object, PyObject*) {
  WaiterObject* self = as_waiter(object);
  return guarded([&]() -> PyObject* {
    const Phase phase = self->ticket->request->phase();
    if (!is_end(phase)) throw std::logic_error("the request has not ended");
    if (phase != Phase::kCancelled) return Py_NewRef(Py_None);
    PyObject* error = asyncio_cancelled_error();
    if (self->message && self->message != Py_None) {
      PyErr_SetObject(error, self->message);
    } else {
      PyErr_SetNone(error);
    }
    return nullptr;
  });
}

PyObject* waiter_cancel(PyObject* object, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  WaiterObject* self = as_waiter(object);
  if (count + (names ? PyTuple_GET_SIZE(names) : 0) > 0) Py_XSETREF(self->message, Py_NewRef(args[0]));  // msg
  return guarded([&] { return PyBool_FromLong(self->ticket->core->batcher().cancel(*self->ticket->request)); });
}

PyObject* waiter_add_done_callback(PyObject* object, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  WaiterObject* self = as_waiter(object);
  const Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
  if (count != 1 || named > 1 || self->callback || self->woken) {
    PyErr_SetString(PyExc_RuntimeError, "what awaiting a ticket yields is for one asyncio task");
    return nullptr;
  }
  self->callback = Py_NewRef(args[0]);
  if (named == 1) Py_XSETREF(self->context, Py_NewRef(args[1]));
  Py_RETURN_NONE;
}

PyObject* waiter_get_loop(PyObject* object, PyObject*) {
  const EventLoop* loop = as_waiter(object)->ticket->loop;
  if (loop && loop->loop()) return Py_NewRef(loop->loop());
  PyErr_SetString(PyExc_RuntimeError, "the ticket is not awaited");
  return nullptr;
}

PyObject* waiter_get_blocking(PyObject* object, void*) { return PyBool_FromLong(as_waiter(object)->blocking); }

int waiter_set_blocking(PyObject* object, PyObject* value, void*) {
  const int truth = value ? PyObject_IsTrue(value) : 0;
  if (truth < 0) return -1;
  as_waiter(object)->blocking = static_cast<char>(truth);
  return 0;
}

/// Keeps the error that is set out of the way for as long as it lives.
class ErrorAside {
 public:
  ErrorAside() { PyErr_Fetch(&type_, &value_, &trace_); }
  ~ErrorAside() { PyErr_Restore(type_, value_, trace_); }
  ErrorAside(const ErrorAside&) = delete;
  ErrorAside& operator=(const ErrorAside&) = delete;

 private:
  PyObject *type_, *value_, *trace_;
};

/// Whether the task still waits for this, so that its step has not begun. False where it does not tell.
bool still_awaited(const WaiterObject* self) {
  const auto task = py::reinterpret_steal<py::object>(PyObject_GetAttr(self->callback, self_name));
  const auto awaited =
      py::reinterpret_steal<py::object>(task ? PyObject_GetAttr(task.ptr(), fut_waiter_name) : nullptr);
  if (!awaited) PyErr_Clear();
  return awaited.ptr() == object_of(const_cast<WaiterObject*>(self));
}

/// After a wake-up that raised. Where it failed before the task's step had begun, as Python was out of memory, the loop
/// wakes it again in a later turn; nothing is allocated for that. Not where asyncio refuses the step (RuntimeError),
/// which it would each time.
void wake_again(WaiterObject* self) {
  if (self->plain || PyErr_ExceptionMatches(PyExc_RuntimeError)) return;
  const ErrorAside aside;
  if (!self->callback || !still_awaited(self)) return;
  const PyObject* again = guarded([&] {
    const auto loop = EventLoop::running();
    if (!loop || !loop->alive() || !self->woken) return Py_None;
    self->woken = false;
    link(self, *loop);
    loop->list()->push(self->ticket->request);
    loop->list()->notify();
    return Py_None;
  });
  if (!again) PyErr_Clear();
}

/// Calls the task's wake-up, if nobody has; its context is entered. False with an error set.
bool wake(WaiterObject* self) {
  if (self->woken || !self->callback) return true;
  self->woken = true;
  const auto callback = py::reinterpret_borrow<py::object>(self->callback);
  PyObject* done = PyObject_CallOneArg(callback.ptr(), self->plain ? object_of(self->ticket) : object_of(self));
  if (!done) wake_again(self);
  Py_XDECREF(done);
  return done != nullptr;
}

/// The same in the task's context. `entered` tells whether that could be entered; if not, nothing has happened.
bool wake_in_context(WaiterObject* self, bool* entered) {
  const auto context = py::reinterpret_borrow<py::object>(self->context);
  *entered = context && PyContext_Enter(context.ptr()) == 0;
  if (!*entered) {
    PyErr_Clear();
    return true;
  }
  const bool woken = wake(self);
  const ErrorAside aside;
  if (PyContext_Exit(context.ptr()) < 0) PyErr_Clear();
  return woken;
}

/// As the loop calls it in a later turn, in the context: call_soon(waiter). So a wake-up that was asked for twice, as
/// an exception of a signal handler may have left open whether the first call took effect, happens once.
PyObject* waiter_call(PyObject* object, PyObject*, PyObject*) {
  WaiterObject* self = as_waiter(object);
  if (!self->ticket->request->done()) {
    PyErr_SetString(PyExc_RuntimeError, "the request has not ended");
    return nullptr;
  }
  return wake(self) ? Py_NewRef(Py_None) : nullptr;
}

/// One task goes on, whatever happens.
void resume(WaiterObject* waiter, EventLoop& loop, bool directly, FirstError& errors) {
  if (!waiter->callback || waiter->woken) return;  // not a task's: nobody to wake
  bool entered = false;
  if (directly && !waiter->plain) {
    if (!wake_in_context(waiter, &entered)) errors.take();
    if (entered) return;
  }
  if (!loop.alive()) return;
  const PyObject* asked = guarded([&] {
    loop.call_soon(object_of(waiter), waiter->context ? waiter->context : Py_None);
    return Py_None;
  });
  if (asked) return;
  errors.take();
  if (!wake_in_context(waiter, &entered)) errors.take();
  if (!entered && !wake(waiter)) errors.take();
}

/// What names a step in asyncio's debug output: the task that the callback belongs to.
PyObject* waiter_get_self(PyObject* object, void*) {
  PyObject* callback = as_waiter(object)->callback;
  if (callback) return PyObject_GetAttr(callback, self_name);
  Py_RETURN_NONE;
}

PyMethodDef waiter_methods[] = {
    {"send", waiter_send_method, METH_O, nullptr},
    {"result", waiter_result, METH_NOARGS, nullptr},
    {"cancel", fast_method(waiter_cancel), METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"add_done_callback", fast_method(waiter_add_done_callback), METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"get_loop", waiter_get_loop, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr}};
PyGetSetDef waiter_getset[] = {{"_asyncio_future_blocking", waiter_get_blocking, waiter_set_blocking, nullptr, nullptr},
                               {"__self__", waiter_get_self, nullptr, nullptr, nullptr},
                               {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyType_Slot waiter_slots[] = {{Py_tp_dealloc, reinterpret_cast<void*>(waiter_dealloc)},
                              {Py_tp_traverse, reinterpret_cast<void*>(waiter_traverse)},
                              {Py_tp_clear, reinterpret_cast<void*>(waiter_clear)},
                              {Py_tp_call, reinterpret_cast<void*>(waiter_call)},
                              {Py_tp_iter, reinterpret_cast<void*>(PyObject_SelfIter)},
                              {Py_tp_iternext, reinterpret_cast<void*>(waiter_next)},
                              {Py_am_send, reinterpret_cast<void*>(waiter_send)},
                              {Py_tp_methods, waiter_methods},
                              {Py_tp_getset, waiter_getset},
                              {0, nullptr}};
PyType_Spec waiter_spec = {"inferkit._core._Waiter", sizeof(WaiterObject), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, waiter_slots};

PyObject* new_waiter(TicketObject* ticket) {
  auto* waiter = new_gc_object<WaiterObject>(waiter_type);
  waiter->ticket = reinterpret_cast<TicketObject*>(Py_NewRef(object_of(ticket)));
  waiter->next = nullptr;
  waiter->callback = waiter->context = waiter->message = nullptr;
  waiter->blocking = 0;
  waiter->plain = waiter->suspended = waiter->woken = false;
  PyObject_GC_Track(waiter);
  return object_of(waiter);
}

/// Takes the waiters out, the longest waiting first, and the loop's reference with them; the caller gets one.
WaiterObject* take_waiters(TicketObject* ticket) {
  WaiterObject* first = nullptr;
  for (WaiterObject* w = std::exchange(ticket->waiters, nullptr); w;) {
    WaiterObject* next = std::exchange(w->next, first);
    first = w;
    w = next;
  }
  Py_INCREF(object_of(ticket));
  std::exchange(ticket->loop, nullptr)->remove_awaited(ticket);
  return first;
}

/// Takes the first out of a list that take_waiters() gave.
py::object take_first(WaiterObject** list) {
  WaiterObject* first = *list;
  *list = std::exchange(first->next, nullptr);
  return py::reinterpret_steal<py::object>(object_of(first));
}

}  // namespace

PyObject* make_waiter(TicketObject* ticket) {
  return guarded([&] { return new_waiter(ticket); });
}

PySendResult await_once(TicketObject* ticket, PyObject** result) {
  *result = nullptr;
  PyObject* waiter = make_waiter(ticket);
  if (!waiter) return PYGEN_ERROR;
  const PySendResult sent = waiter_send(waiter, Py_None, result);
  Py_DECREF(waiter);
  return sent;
}

PyObject* as_next(PySendResult sent, PyObject* result) {
  if (sent != PYGEN_RETURN) return result;
  // StopIteration(result), made by hand: a tuple would be taken for its arguments.
  PyObject* stop = PyObject_CallOneArg(PyExc_StopIteration, result);
  Py_DECREF(result);
  if (stop) {
    PyErr_SetObject(PyExc_StopIteration, stop);
    Py_DECREF(stop);
  }
  return nullptr;
}

py::object make_callback(TicketObject* ticket, py::handle function, py::handle context) {
  auto waiter = py::reinterpret_steal<py::object>(new_waiter(ticket));
  WaiterObject* self = as_waiter(waiter.ptr());
  self->plain = true;
  self->callback = Py_NewRef(function.ptr());
  self->context = Py_NewRef(context.ptr());
  return waiter;
}

void link_waiter(py::handle waiter, EventLoop& loop) { link(as_waiter(waiter.ptr()), loop); }

void resume_waiters(TicketObject* ticket, bool directly, FirstError& errors) {
  if (!ticket->waiters) return;
  const auto loop = ticket->loop->shared_from_this();
  for (WaiterObject* rest = take_waiters(ticket); rest;) {
    const py::object first = take_first(&rest);  // it may be linked again
    resume(as_waiter(first.ptr()), *loop, directly && !errors, errors);
  }
  Py_DECREF(object_of(ticket));
}

void drop_waiters(TicketObject* ticket) {
  // They let go of their tasks, which hold them.
  for (WaiterObject* rest = take_waiters(ticket); rest;) waiter_clear(take_first(&rest).ptr());
  Py_DECREF(object_of(ticket));
}

int visit_waiters(const TicketObject* ticket, visitproc visit, void* arg) {
  for (WaiterObject* w = ticket->waiters; w; w = w->next) Py_VISIT(object_of(w));
  return 0;
}

void bind_waiter() {
  waiter_type = make_type(waiter_spec);
  self_name = intern("__self__");
  fut_waiter_name = intern("_fut_waiter");
}

}  // namespace inferkit
