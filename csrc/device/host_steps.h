// Steps that run on the calling thread: all of a program for the CPU, and of one for another device those that it
// leaves.
#pragma once
#include <cstddef>

#include "device/program.h"

namespace inferkit {

/// Runs steps [first, last) of `program`, whose operands are at `table`, one after another. Throws Error that names the
/// node, and Stopped where RunControl says so.
void run_host_steps(const Program& program, size_t first, size_t last, std::byte* const* table,
                    const ExecContext& context);

}  // namespace inferkit
