// What a CUDA device is made of, for device/cuda/cuda.cc: memory, copies, captured graphs. The driver's is
// in driver_backend.cc; the tests have one on the host (tests/cuda_on_host).
#pragma once
#include <cstddef>
#include <memory>

#include "device/cuda/queue.h"
#include "platform/clock.h"
#include "platform/thread_pool.h"

namespace inferkit {

/// A stream: launches and copies that begin when they are put in. Not thread-safe.
class CudaLane : public LaunchQueue {
 public:
  /// What other libraries call it.
  virtual uintptr_t handle() const = 0;
  /// What is put in from now on waits for all that is in a stream of another library now. Throws Error(kValidation)
  /// where that cannot be waited for.
  virtual void wait_for(uintptr_t stream) = 0;
  /// Whether another library has made it a part of a capture: nothing can run in it any more.
  virtual bool is_captured() = 0;
  /// Returns when all is done. Throws Error(kDevice) where the device fails.
  virtual void wait() = 0;
  void mark(size_t) override {}  // those are for graphs
};

/// A point in a stream of another library.
class CudaMark {
 public:
  virtual ~CudaMark() = default;
  virtual bool is_over() noexcept = 0;
  virtual void wait() noexcept = 0;
};

/// Launches and copies that run as one. Not thread-safe.
class CudaGraph {
 public:
  virtual ~CudaGraph() = default;
  /// Begins a run: what pinned memory holds by then is what it sees.
  virtual void begin() = 0;
  /// Returns when all that has begun is done. Throws Error(kDevice) where the device fails.
  virtual void wait() = 0;
  void run() {
    begin();
    wait();
  }
  /// Puts it into `lane`, to run after what is there.
  virtual void start(CudaLane& lane) = 0;
  /// What the last run took from one mark to another.
  virtual Nanos between(size_t first, size_t last) = 0;
};

/// Thread-safe. What fails is Error(kDevice), or Error(kPoolExhausted) where there is no memory.
class CudaBackend {
 public:
  virtual ~CudaBackend() = default;
  /// Memory of the device, aligned to 256 bytes.
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* memory) noexcept = 0;
  /// What memory of the device holds is nothing any more: it is kept for whoever comes next.
  virtual void forget(void* /*memory*/, size_t /*bytes*/) noexcept {}
  /// Memory of the host that copies and kernels reach, at the same address.
  virtual void* allocate_pinned(size_t bytes) = 0;
  virtual void release_pinned(void* memory) noexcept = 0;
  /// From any memory of the host to the device's; returns when it is there.
  virtual void upload(void* to, const void* from, size_t bytes) = 0;
  /// What `record` puts into the queue, with `marks` marks; it may be called more than once.
  virtual std::unique_ptr<CudaGraph> capture(const FunctionRef<void(LaunchQueue&)>& record, size_t marks) = 0;
  virtual std::unique_ptr<CudaLane> lane() = 0;
  /// All that is in the stream now; null where the driver takes none there.
  virtual std::unique_ptr<CudaMark> mark(uintptr_t stream) noexcept = 0;
  /// The number of the device that memory is of; kHost, or kNobody where the driver does not know it.
  virtual int device_of(const void* memory) noexcept = 0;
  static constexpr int kHost = -1, kNobody = -2;
  /// Of the driver's devices, the number of this one.
  virtual int number() const { return 0; }
};

}  // namespace inferkit
