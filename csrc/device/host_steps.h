// Steps that run on the calling thread: all of a program for the CPU, and of one for another device those that it
// leaves.
#pragma once
#include <cstddef>

#include "device/program.h"
#include "platform/clock.h"

namespace inferkit {

/// Runs steps [first, last) of `program`, whose operands are at `table`, one after another; how long step i took goes
/// to taken[i], where that is not null. Throws Error that names the node, and Stopped where RunControl says so.
void run_host_steps(const Program& program, size_t first, size_t last, std::byte* const* table,
                    const ExecContext& context, Nanos* taken = nullptr);

}  // namespace inferkit
