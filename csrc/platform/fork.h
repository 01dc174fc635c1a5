// Which process this is, told without a system call.
#pragma once
#include <atomic>
#include <cstdint>

namespace inferkit {

namespace detail {
extern std::atomic<uint32_t> forks;
}

/// Changes in the child of every fork(). What was made under another generation has lost its threads, and the locks
/// that they held: do not touch it. Relaxed: in the child there is one thread, and it made the change.
inline uint32_t fork_generation() { return detail::forks.load(std::memory_order_relaxed); }

}  // namespace inferkit
