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
  bool suspended;
};

namespace {

PyTypeObject* waiter_type = nullptr;

WaiterObject* as_waiter(PyObject* object) { return reinterpret_cast<WaiterObject*>(object); }
PyObject* object_of(void* object) { return static_cast<PyObject*>(object); }

PyObject* asyncio_cancelled_error() {
  // Not initialised where it is declared: an import gives up the GIL, and the guard of the static must not be held
  // then.
  static PyObject* type = nullptr;
  if (!type) type = py::object(py::module_::import("asyncio").attr("CancelledError")).release().ptr();
  return type;
}

/// As ticket_outcome, but cancellation is asyncio's.
PyObject* outcome(TicketObject* ticket) {
  if (ticket->request->phase() != Phase::kCancelled) return ticket_outcome(ticket);
  PyErr_SetNone(asyncio_cancelled_error());
  return nullptr;
}

void waiter_dealloc(PyObject* object) {
  WaiterObject* self = as_waiter(object);
  Py_CLEAR(self->callback);
  Py_CLEAR(self->context);
  Py_CLEAR(self->message);
  PyTypeObject* type = Py_TYPE(object);
  PyObject* ticket = object_of(self->ticket);
  PyObject_Free(object);
  Py_XDECREF(ticket);
  Py_DECREF(type);
}

/// Lets the running loop learn of the end. False with an error set; true also where the request has ended meanwhile.
bool suspend(WaiterObject* self) {
  TicketObject* ticket = self->ticket;
  return guarded([&]() -> PyObject* {
           EventLoop* loop = ticket->loop ? ticket->loop : EventLoop::running();
           if (!loop) throw std::logic_error("a ticket can be awaited under asyncio only; elsewhere call .result()");
           if (!ticket->request->attached_to(loop->list()) && !ticket->request->attach(loop->list())) {
             if (ticket->request->done()) return Py_None;
             throw std::logic_error("the ticket is awaited on another event loop");
           }
           if (!ticket->waiters) {
             ticket->loop = loop;
             loop->add_awaited(ticket);
           }
           self->next = ticket->waiters;
           ticket->waiters = as_waiter(Py_NewRef(object_of(self)));
           self->suspended = true;
           self->blocking = 1;
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

PyObject* waiter_send_method(PyObject* object, PyObject*) { return waiter_next(object); }

/// What the task asks when it wakes up: only whether to go on or to raise; the value is fetched by the next step.
PyObject* waiter_result(PyObject* object, PyObject*) {
  WaiterObject* self = as_waiter(object);
  const Phase phase = self->ticket->request->phase();
  if (phase == Phase::kCancelled) {
    if (self->message && self->message != Py_None) {
      PyErr_SetObject(asyncio_cancelled_error(), self->message);
    } else {
      PyErr_SetNone(asyncio_cancelled_error());
    }
    return nullptr;
  }
  if (!is_end(phase)) {
    PyErr_SetString(PyExc_RuntimeError, "the request has not ended");
    return nullptr;
  }
  Py_RETURN_NONE;
}

PyObject* waiter_cancel(PyObject* object, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  WaiterObject* self = as_waiter(object);
  if (count + (names ? PyTuple_GET_SIZE(names) : 0) > 0) Py_XSETREF(self->message, Py_NewRef(args[0]));  // msg
  return PyBool_FromLong(self->ticket->core->batcher().cancel(*self->ticket->request));
}

PyObject* waiter_add_done_callback(PyObject* object, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  WaiterObject* self = as_waiter(object);
  if (count != 1 || self->callback) {
    PyErr_SetString(PyExc_RuntimeError, "what awaiting a ticket yields is for one asyncio task");
    return nullptr;
  }
  self->callback = Py_NewRef(args[0]);
  if (names && PyTuple_GET_SIZE(names) == 1) Py_XSETREF(self->context, Py_NewRef(args[1]));
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

/// One task's wake-up. False with an error set.
bool resume(WaiterObject* waiter, EventLoop* loop, bool directly) {
  if (!waiter->callback) return true;  // not a task's: nobody to wake
  const py::object callback = py::reinterpret_steal<py::object>(std::exchange(waiter->callback, nullptr));
  const py::object context = py::reinterpret_steal<py::object>(std::exchange(waiter->context, nullptr));
  if (directly && context && PyContext_Enter(context.ptr()) == 0) {
    PyObject* done = PyObject_CallOneArg(callback.ptr(), object_of(waiter));
    // Leave with the error out of the way, if there is one.
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyContext_Exit(context.ptr());
    PyErr_Restore(type, value, trace);
    Py_XDECREF(done);
    return done != nullptr;
  }
  PyErr_Clear();
  if (!loop->alive()) return true;
  return guarded([&] {
           loop->call_soon(callback, py::handle(object_of(waiter)), context ? context : py::object(py::none()));
           return Py_None;
         }) != nullptr;
}

PyMethodDef waiter_methods[] = {
    {"send", waiter_send_method, METH_O, nullptr},
    {"result", waiter_result, METH_NOARGS, nullptr},
    {"cancel", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(waiter_cancel)), METH_FASTCALL | METH_KEYWORDS,
     nullptr},
    {"add_done_callback", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(waiter_add_done_callback)),
     METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"get_loop", waiter_get_loop, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr}};
PyGetSetDef waiter_getset[] = {{"_asyncio_future_blocking", waiter_get_blocking, waiter_set_blocking, nullptr, nullptr},
                               {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyType_Slot waiter_slots[] = {{Py_tp_dealloc, reinterpret_cast<void*>(waiter_dealloc)},
                              {Py_tp_iter, reinterpret_cast<void*>(PyObject_SelfIter)},
                              {Py_tp_iternext, reinterpret_cast<void*>(waiter_next)},
                              {Py_am_send, reinterpret_cast<void*>(waiter_send)},
                              {Py_tp_methods, waiter_methods},
                              {Py_tp_getset, waiter_getset},
                              {0, nullptr}};
PyType_Spec waiter_spec = {"inferkit._core._Waiter", sizeof(WaiterObject), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, waiter_slots};

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
}  // namespace

PyObject* make_waiter(TicketObject* ticket) {
  auto* waiter = PyObject_New(WaiterObject, waiter_type);
  if (!waiter) return nullptr;
  waiter->ticket = reinterpret_cast<TicketObject*>(Py_NewRef(object_of(ticket)));
  waiter->next = nullptr;
  waiter->callback = waiter->context = waiter->message = nullptr;
  waiter->blocking = 0;
  waiter->suspended = false;
  return object_of(waiter);
}

void resume_waiters(TicketObject* ticket, bool directly) {
  if (!ticket->waiters) return;
  const auto loop = ticket->loop->shared_from_this();
  WaiterObject* w = take_waiters(ticket);
  std::exception_ptr first;
  while (w) {
    if (!resume(w, loop.get(), directly && !first)) {
      py::error_already_set error;
      if (!first) first = std::make_exception_ptr(error);
    }
    WaiterObject* next = std::exchange(w->next, nullptr);
    Py_DECREF(object_of(w));
    w = next;
  }
  Py_DECREF(object_of(ticket));
  if (first) std::rethrow_exception(first);
}

void drop_waiters(TicketObject* ticket) {
  WaiterObject* w = take_waiters(ticket);
  while (w) {
    WaiterObject* next = std::exchange(w->next, nullptr);
    Py_CLEAR(w->callback);  // holds the task, which holds the waiter: nobody else would undo the knot
    Py_CLEAR(w->context);
    Py_DECREF(object_of(w));
    w = next;
  }
  Py_DECREF(object_of(ticket));
}

void bind_waiter() {
  waiter_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&waiter_spec));  // lives as long as the process
  if (!waiter_type) throw py::error_already_set();
}

}  // namespace inferkit
