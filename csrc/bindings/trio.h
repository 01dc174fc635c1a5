// Tickets under trio, whose tasks asyncio's handshake means nothing to: inferkit._trio waits for them, and shows a run
// of trio as a loop.
#pragma once
#include <pybind11/pybind11.h>

namespace inferkit {

/// Whether trio runs the calling task. Costs a look into sys.modules where nobody has imported it.
bool trio_runs();
/// The loop that stands for the run of trio; null where trio does not run the calling task.
pybind11::object trio_loop();
/// The iterator that a task of trio's awaits for the ticket's end.
pybind11::object trio_wait(pybind11::handle ticket);

void bind_trio();

}  // namespace inferkit
