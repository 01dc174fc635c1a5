// Copies from global to shared memory that go on while the thread does other work: it begins some, closes them as a
// group, and waits for groups in the order in which it closed them. What has arrived others see behind the next
// barrier.
#pragma once
#include "kernels/cuda/platform.h"

namespace inferkit::kernels::cuda {
namespace {

/// Begins to copy a float, or four at addresses that 16 divides; zeros where nothing is `there`.
template <int kFloats>
INFERKIT_DEVICE void begin_copy(float* to, const float* from, bool there) {
  static_assert(kFloats == 1 || kFloats == 4);
#if defined(__CUDACC__)
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  const int bytes = there ? kFloats * 4 : 0;
  if constexpr (kFloats == 4) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(at), "l"(from), "r"(bytes) : "memory");
  }
#else
  ::inferkit::cuda_on_host::begin_copy(to, there ? from : nullptr, kFloats * sizeof(float));
#endif
}
INFERKIT_DEVICE void close_copies() {
#if defined(__CUDACC__)
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  ::inferkit::cuda_on_host::close_copies();
#endif
}
/// Waits for all groups of this thread but the last kGoOn.
template <int kGoOn>
INFERKIT_DEVICE void await_copies() {
#if defined(__CUDACC__)
  asm volatile("cp.async.wait_group %0;" ::"n"(kGoOn) : "memory");
#else
  ::inferkit::cuda_on_host::await_copies(kGoOn);
#endif
}

}  // namespace
}  // namespace inferkit::kernels::cuda
