#include "bindings/done_callback.h"

#include <stdexcept>

#include "base/cat.h"
#include "bindings/event_loop.h"
#include "bindings/waiter.h"

namespace py = pybind11;

namespace inferkit {
namespace {

py::module_ callbacks_module() { return py::module_::import("inferkit._callbacks"); }

/// The loop that runs on the package's own thread, which is started where there is none.
std::shared_ptr<EventLoop> own_loop() {
  const std::shared_ptr<EventLoop> loop = EventLoop::of_loop(callbacks_module().attr("running_loop")());
  if (!loop || !loop->alive()) throw std::logic_error("the loop of the callbacks is closed");
  return loop;
}

py::object context_or_copy(py::handle context) {
  if (context.is_none()) {
    PyObject* copy = PyContext_CopyCurrent();
    if (!copy) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(copy);
  }
  if (!PyContext_CheckExact(context.ptr())) {
    throw py::type_error(cat("context must be a contextvars.Context or None, got ", Py_TYPE(context.ptr())->tp_name));
  }
  return py::reinterpret_borrow<py::object>(context);
}

}  // namespace

void add_done_callback(TicketObject* ticket, py::handle function, py::handle context) {
  if (!PyCallable_Check(function.ptr())) {
    throw py::type_error(cat("a callback must be callable, got ", Py_TYPE(function.ptr())->tp_name));
  }
  const py::object within = context_or_copy(context);
  const py::object callback = make_callback(ticket, function, within);
  const std::shared_ptr<EventLoop> here = EventLoop::running();
  Request& request = *ticket->request;
  if (!request.done()) {
    std::shared_ptr<EventLoop> loop = EventLoop::of(request);
    if (!loop) loop = here ? here : own_loop();
    // No Python from here to the end of this block, but for what arms the timer.
    if (!loop->alive()) throw std::logic_error("the event loop is closed");
    const bool known = request.attached_to(*loop->list());
    if (known || request.attach(*loop->list())) {
      link_waiter(callback, *loop);
      if (known || !ticket->core->to_be_watched(request)) return;
      loop->watch(ticket->core->weak_from_this(), ticket->request);
      return loop == here ? loop->arm() : loop->arm_soon();
    }
    if (!request.done()) {
      throw std::logic_error("the event loop that the ticket was submitted on is closed: it calls nobody any more");
    }
  }
  if (here) {
    here->call_soon(callback, within);
  } else {
    callbacks_module().attr("call_soon")(callback, within);
  }
}

}  // namespace inferkit
