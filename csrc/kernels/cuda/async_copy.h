// Copies from global to shared memory that pass through no register: a thread issues them and goes on. On the host they
// are done at once, so that a wait that is missing does not show there.
#pragma once
#include "kernels/cuda/platform.h"

namespace inferkit::kernels::cuda {
namespace {

#if defined(__CUDACC__)

INFERKIT_DEVICE void copy_one(float* to, const float* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(static_cast<uint32_t>(__cvta_generic_to_shared(to))),
               "l"(from)
               : "memory");
}
/// Four neighbours; 16 divides both addresses.
INFERKIT_DEVICE void copy_four(float* to, const float* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(static_cast<uint32_t>(__cvta_generic_to_shared(to))),
               "l"(from)
               : "memory");
}
/// Until all that this thread has issued is there; others see it after a barrier.
INFERKIT_DEVICE void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

#else

INFERKIT_DEVICE void copy_one(float* to, const float* from) { *to = *from; }
INFERKIT_DEVICE void copy_four(float* to, const float* from) { store4(to, load4(from)); }
INFERKIT_DEVICE void wait_for_copies() {}

#endif

}  // namespace
}  // namespace inferkit::kernels::cuda
