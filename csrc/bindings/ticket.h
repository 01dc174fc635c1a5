// The ticket that submit() gives: one type for threads and for asyncio.
#pragma once
#include <pybind11/pybind11.h>

#include <memory>

#include "batching/request.h"
#include "bindings/batcher_core.h"

namespace inferkit {

struct WaiterObject;

/// A Python object of our own type, as pybind11's would cost more than a small model. Guarded by the GIL.
struct TicketObject {
  PyObject ob_base;
  RequestRef request;  // set before anybody sees the ticket
  CoreRef core;
  bool named;             // the request came as a dict, and so goes its answer
  PyObject* result;       // made when first asked for
  WaiterObject* waiters;  // tasks that await it; owned
  EventLoop* loop;        // of the waiters; set while there are any, and then the loop holds a reference to this
  TicketObject* awaited_next;
  TicketObject* awaited_previous;
};

/// A ticket without a request yet, so that none needs one that cannot be made. Calls Python, as all do that make
/// objects.
class NewTicket {
 public:
  explicit NewTicket(CoreRef core);
  /// Gives it its request, whose inputs came as a dict or not; calls no Python. A new reference.
  pybind11::object take(RequestRef request, bool named);

 private:
  pybind11::object ticket_;
};

/// The result or the error of a request that has ended: a new reference, or null with the error set.
PyObject* ticket_outcome(TicketObject* ticket);

void bind_ticket(pybind11::module_& m);

}  // namespace inferkit
