// A CUDA device for programs that runs its kernels on the host.
#pragma once
#include <atomic>
#include <memory>

#include "device/cuda/cuda.h"

namespace inferkit::cuda_on_host {

/// What the tests want to know of a device, and set.
struct Figures {
  std::atomic<uint64_t> seed{1};                   // of the next run's first kernel; each further one takes the next
  std::atomic<int64_t> allocations{0}, pinned{0};  // blocks that are held
  std::atomic<int64_t> uploads{0}, captures{0}, launches{0};
  std::atomic<int64_t> waits{0};                  // of the host, for a graph
  std::atomic<int64_t> copies{0};                 // in graphs
  std::atomic<bool> loses{false};                 // the next graph does nothing, and ends well
  std::atomic<int64_t> memory{int64_t{1} << 30};  // bytes of the device that are free
};

/// Memory of the device is memory of the host that starts as NaN, and is NaN again when it is kept; a graph is a list
/// that is worked off; between two marks a microsecond passes for each launch. `figures` must outlive the device.
std::unique_ptr<CudaDevice> make_device(Figures& figures);

}  // namespace inferkit::cuda_on_host
