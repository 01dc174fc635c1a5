// What a CUDA kernel is written in. nvcc compiles the files for devices; the tests compile the very same files for the
// host, where tests/cuda_on_host, whose header the build puts in front, runs the threads of a block as fibers. A kernel
// takes one struct of parameters, has dynamic shared memory alone, and is listed in kernels.inc.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/cuda/nest.h"

#if defined(__CUDACC__)

#define INFERKIT_DEVICE static __device__ __forceinline__
/// Threads of a block at most, and blocks that a multiprocessor should hold: what ptxas divides the registers by.
#define INFERKIT_KERNEL(name, Params, threads, blocks) \
  extern "C" __global__ void __launch_bounds__(threads, blocks) inferkit_##name(const __grid_constant__ Params p)
#define INFERKIT_SHARED(T, name)                                 \
  extern __shared__ __align__(16) unsigned char inferkit_smem[]; \
  T* const name = reinterpret_cast<T*>(inferkit_smem)

#elif !defined(INFERKIT_CUDA_ON_HOST)
#error "for the host, tests/cuda_on_host/cuda_on_host.h comes first"
#else

#define INFERKIT_DEVICE static inline
#define INFERKIT_KERNEL(name, Params, threads, blocks) void name(const Params& p)
#define INFERKIT_SHARED(T, name) T* const name = reinterpret_cast<T*>(::inferkit::cuda_on_host::shared_memory())

#endif

namespace inferkit::kernels::cuda {

/// The number of this thread in the grid, and how many there are: for loops over elements.
INFERKIT_DEVICE int64_t first_element() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + static_cast<int64_t>(threadIdx.x);
}
INFERKIT_DEVICE int64_t element_step() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

/// Where element i lies in each operand.
template <int N>
INFERKIT_DEVICE void offsets_of(const Nest<N>& nest, int64_t i, int64_t (&at)[N]) {
  for (int k = 0; k < N; ++k) at[k] = 0;
  for (int d = nest.rank - 1; d >= 0; --d) {
    const int64_t index = d == 0 ? i : i % nest.dims[d];
    i /= nest.dims[d];
    for (int k = 0; k < N; ++k) at[k] += index * nest.strides[k][d];
  }
}

/// A value with the number of the run as its upper half, in one store: a host that sees the word knows of which run it
/// is, in whatever order words come. volatile: one store of eight bytes, as it stands here.
INFERKIT_DEVICE void put_word(uint64_t* at, uint32_t value, uint32_t run) {
  *static_cast<volatile uint64_t*>(at) = uint64_t{run} << 32 | value;
}

/// Four neighbours at an address that 16 divides.
INFERKIT_DEVICE float4 load4(const float* at) {
#if !defined(__CUDACC__)
  ::inferkit::cuda_on_host::check_alignment(at, sizeof(float4));
#endif
  return *reinterpret_cast<const float4*>(at);
}
INFERKIT_DEVICE void store4(float* at, const float4& v) {
#if !defined(__CUDACC__)
  ::inferkit::cuda_on_host::check_alignment(at, sizeof(float4));
#endif
  *reinterpret_cast<float4*>(at) = v;
}

}  // namespace inferkit::kernels::cuda
