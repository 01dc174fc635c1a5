// What the steps of a program for CUDA ask for: a step's function is called once, when its graph is captured, and puts
// launches and copies into the queue; the device runs them at every run, in that order.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace inferkit {

/// A kernel, by its place in kernels/cuda/kernels.inc and its name there.
struct KernelLaunch {
  size_t kernel = 0;
  const char* name = "";
  std::array<unsigned, 3> blocks = {1, 1, 1};
  unsigned threads = 1;
  size_t shared_bytes = 0;
};

class LaunchQueue {
 public:
  virtual ~LaunchQueue() = default;
  /// `params` is copied.
  virtual void launch(const KernelLaunch& launch, std::span<const std::byte> params) = 0;
  /// Between memory of the device and pinned memory, in any direction.
  virtual void copy(void* to, const void* from, size_t bytes) = 0;
  /// Note the time when all that is in the queue is done, as mark `number` of a capture that has so many.
  virtual void mark(size_t number) = 0;

  /// Where a kernel that meets data which make its step impossible writes step() + 1; 0 while there are none. The step
  /// with kDividesByZero is one that met a divisor of 0; without, an index that is out of range.
  static constexpr uint32_t kDividesByZero = uint32_t{1} << 31;
  uint32_t* fault() const { return fault_; }
  uint32_t step() const { return step_; }
  void set_fault(uint32_t* fault) { fault_ = fault; }
  void set_step(uint32_t step) { step_ = step; }

 private:
  uint32_t* fault_ = nullptr;
  uint32_t step_ = 0;
};

}  // namespace inferkit
