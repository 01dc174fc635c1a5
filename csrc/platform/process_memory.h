// How much memory this process holds.
#pragma once
#include <cstddef>

namespace inferkit {

/// Bytes of physical memory that the process has mapped (RSS), files included; 0 where /proc is not to be had.
size_t resident_bytes();

}  // namespace inferkit
