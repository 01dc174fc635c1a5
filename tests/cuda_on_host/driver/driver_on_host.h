// A driver for tests, libcuda.so.1, that runs kernels on the host: what it has beside the functions of the driver. A
// process that finds it first, through LD_LIBRARY_PATH, has a CUDA device.
//
// It is stricter than a driver: it refuses a call without a context, a copy that leaves its block or of memory that it
// does not know, what may not stand in a capture, a kernel that was not loaded before. Copies, launches and graphs are
// late: they are done when their stream is waited for, or
// when an event in it is.
#pragma once
#include <cstdint>

extern "C" {

struct CudaOnHostFigures {
  int64_t allocations, pinned, streams, graphs, events, contexts;  // that are held
  int64_t launches, captures;
};
using CudaOnHostFigures_fn = void(CudaOnHostFigures* out);
using CudaOnHostMemory_fn = void(int64_t bytes);
using CudaOnHostBreak_fn = void();

/// What is held and what has been done.
void cuda_on_host_figures(CudaOnHostFigures* out);
/// How much memory of the device is free from now on.
void cuda_on_host_memory(int64_t bytes);
/// The next wait for a stream finds that a kernel read an illegal address; as on a device, every call from then on
/// fails. A second call repairs it, which no device does.
void cuda_on_host_break();
}
