// What awaiting a ticket yields, and how the tasks that wait go on.
#pragma once
#include "bindings/ticket.h"

namespace inferkit {

/// The iterator of `await ticket`; a new reference.
PyObject* make_waiter(TicketObject* ticket);

/// Lets the tasks that await the ticket go on: their steps run now where `directly`, else in a later turn of the loop.
/// Throws what a step raises past its task (KeyboardInterrupt, SystemExit), after all of them went on.
void resume_waiters(TicketObject* ticket, bool directly);
/// Forgets them, as their loop is gone.
void drop_waiters(TicketObject* ticket);

/// Makes the type.
void bind_waiter();

}  // namespace inferkit
