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

/// i / d for i < 2^31 and the d that `by` is of.
INFERKIT_DEVICE uint32_t quotient(uint32_t i, const Divisor& by) { return __umulhi(2 * i, by.multiplier) >> by.shift; }

/// Where element i lies in each operand. Offsets of a small nest are counted modulo 2^32, as they may be negative.
template <int N>
INFERKIT_DEVICE void offsets_of(const Nest<N>& nest, int64_t i, int64_t (&at)[N]) {
  if (nest.is_small) {
    uint32_t rest = static_cast<uint32_t>(i), small[N] = {};
    for (int d = nest.rank - 1; d > 0; --d) {
      const uint32_t next = quotient(rest, nest.divisors[d]);
      const uint32_t index = rest - next * static_cast<uint32_t>(nest.dims[d]);
      for (int k = 0; k < N; ++k) small[k] += index * static_cast<uint32_t>(nest.strides[k][d]);
      rest = next;
    }
    for (int k = 0; k < N; ++k) {
      at[k] = static_cast<int32_t>(small[k] + rest * static_cast<uint32_t>(nest.strides[k][0]));
    }
    return;
  }
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

/// What a device does only at addresses that the size of T divides.
template <class T>
INFERKIT_DEVICE T load_as(const void* at) {
#if !defined(__CUDACC__)
  ::inferkit::cuda_on_host::check_alignment(at, sizeof(T));
#endif
  return *static_cast<const T*>(at);
}
template <class T>
INFERKIT_DEVICE void store_as(void* at, const T& v) {
#if !defined(__CUDACC__)
  ::inferkit::cuda_on_host::check_alignment(at, sizeof(T));
#endif
  *static_cast<T*>(at) = v;
}

/// Two neighbours at an address that 8 divides, four at one that 16 divides.
INFERKIT_DEVICE float2 load2(const float* at) { return load_as<float2>(at); }
INFERKIT_DEVICE float4 load4(const float* at) { return load_as<float4>(at); }
INFERKIT_DEVICE void store4(float* at, const float4& v) { store_as(at, v); }

}  // namespace inferkit::kernels::cuda
