// What awaiting a ticket yields, and how the tasks that wait go on.
#pragma once
#include "bindings/native_type.h"
#include "bindings/ticket.h"

namespace inferkit {

/// The iterator of `await ticket`; a new reference, or null with an error set.
PyObject* make_waiter(TicketObject* ticket);
/// One step of a task whose coroutine is the ticket itself: yields a waiter while the request has not ended.
PySendResult await_once(TicketObject* ticket, PyObject** result);
/// What a step gives to who calls send() or next() by name: StopIteration ends it.
PyObject* as_next(PySendResult sent, PyObject* result);

/// What is to be called when the request has ended, as a waiter that is no task's; in `context`.
pybind11::object make_callback(TicketObject* ticket, pybind11::handle function, pybind11::handle context);
/// Has the loop, which learns of the end of the waiter's request, wake it. Calls no Python.
void link_waiter(pybind11::handle waiter, EventLoop& loop);

/// Lets the tasks that await the ticket go on: their steps run now where `directly`, else in a later turn of the loop.
/// What goes wrong meanwhile, or what a step raises past its task (KeyboardInterrupt, SystemExit), goes to `errors`,
/// and all of them go on none the less.
void resume_waiters(TicketObject* ticket, bool directly, FirstError& errors);
/// Forgets them, as their loop is gone.
void drop_waiters(TicketObject* ticket);
/// For the garbage collector.
int visit_waiters(const TicketObject* ticket, visitproc visit, void* arg);

/// Makes the type.
void bind_waiter();

}  // namespace inferkit
