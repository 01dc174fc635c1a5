// Which process this is, told without a system call.
#pragma once
#include <cstdint>

namespace inferkit {

/// Changes in the child of every fork(). What was made under another generation has lost its threads, and the locks
/// that they held: do not touch it.
uint32_t fork_generation();

}  // namespace inferkit
