// Ticket.add_done_callback.
#pragma once
#include "bindings/ticket.h"

namespace inferkit {

/// Has function(ticket) called once, after the request has ended, by an event loop: the one that the ticket reports to,
/// else the one that runs here, else that of the package's own thread. Never within this call. Calls Python.
void add_done_callback(TicketObject* ticket, pybind11::handle function, pybind11::handle context);

}  // namespace inferkit
