// What awaiting a ticket yields, and how the tasks that wait go on.
#pragma once
#include "bindings/native_type.h"
#include "bindings/ticket.h"

namespace inferkit {

/// The iterator of `await ticket`; a new reference, or null with an error set.
PyObject* make_waiter(TicketObject* ticket);

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
