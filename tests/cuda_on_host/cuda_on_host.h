// What CUDA kernels use, on the host: the threads of a block are fibers that take turns in an order drawn by a seed, so
// that a barrier that is missing shows. Comes before csrc/kernels/cuda/platform.h where no nvcc compiles that.
//
// What it cannot show: what ptxas makes of the code, the memory model between barriers, speed.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define INFERKIT_CUDA_ON_HOST

namespace inferkit::cuda_on_host {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

/// Of the thread that runs.
const Dim3& thread_index();
const Dim3& block_index();
const Dim3& block_dim();
const Dim3& grid_dim();
/// Of the block that runs: NaN all over when it starts, with guards behind it that must stay.
void* shared_memory();
void barrier();
/// Every lane of the warp gives a value; returns those of all 32. The mask must be that of a whole warp.
const uint64_t* exchange(uint32_t mask, uint64_t value);
unsigned lane();
/// What a lane brings to a product of tensor cores: pairs of halves of A and of B.
struct Fragments {
  uint32_t a[4], b[2];
};
/// As exchange(). Where lanes of a warp meet in one and the other, the launch ends with an error.
const Fragments* exchange_fragments(const Fragments& mine);
/// To the nearest, ties to even; infinite where it is too large. Subnormals of float count as zero.
uint16_t bf16_bits(float v);
uint16_t f16_bits(float v);
float float_of_bf16(uint16_t bits);
float float_of_f16(uint16_t bits);
/// With INFERKIT_TEST_ON_DEVICE=1 in the environment a device is tested: whoever asks for the emulator then is not, and
/// gets a SkipError.
bool is_off();
void require_on();
/// For the tests' driver, which is a machine's device to whom it is linked.
void keep_on();

/// Ends the launch with an error: what is wrong would be undefined on a device.
void check_alignment(const void* at, size_t bytes);

/// A copy into shared memory, of zeros from null, which is made now or when the thread waits for the group that it
/// closed behind it (kernels/cuda/copies.h).
void begin_copy(void* to, const void* from, size_t bytes);
void close_copies();
/// Makes the copies of all groups but the last `go_on`.
void await_copies(size_t go_on);

template <class T>
uint64_t to_word(T value) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(value));
  return word;
}
template <class T>
T from_word(uint64_t word) {
  T value;
  std::memcpy(&value, &word, sizeof(value));
  return value;
}

}  // namespace inferkit::cuda_on_host

#define threadIdx (::inferkit::cuda_on_host::thread_index())
#define blockIdx (::inferkit::cuda_on_host::block_index())
#define blockDim (::inferkit::cuda_on_host::block_dim())
#define gridDim (::inferkit::cuda_on_host::grid_dim())

inline void __syncthreads() { ::inferkit::cuda_on_host::barrier(); }
inline void __syncwarp(uint32_t mask = ~0u) { ::inferkit::cuda_on_host::exchange(mask, 0); }

template <class T>
T __shfl_sync(uint32_t mask, T value, int from, int width = 32) {
  const auto* all = ::inferkit::cuda_on_host::exchange(mask, ::inferkit::cuda_on_host::to_word(value));
  const int lane = static_cast<int>(::inferkit::cuda_on_host::lane());
  return ::inferkit::cuda_on_host::from_word<T>(all[(lane & ~(width - 1)) | (from & (width - 1))]);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int with, int width = 32) {
  const auto* all = ::inferkit::cuda_on_host::exchange(mask, ::inferkit::cuda_on_host::to_word(value));
  const int lane = static_cast<int>(::inferkit::cuda_on_host::lane()), from = lane ^ with;
  return from / width == lane / width ? ::inferkit::cuda_on_host::from_word<T>(all[from]) : value;
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, unsigned by, int width = 32) {
  const auto* all = ::inferkit::cuda_on_host::exchange(mask, ::inferkit::cuda_on_host::to_word(value));
  const int lane = static_cast<int>(::inferkit::cuda_on_host::lane()), from = lane + static_cast<int>(by);
  return from / width == lane / width ? ::inferkit::cuda_on_host::from_word<T>(all[from]) : value;
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, unsigned by, int width = 32) {
  const auto* all = ::inferkit::cuda_on_host::exchange(mask, ::inferkit::cuda_on_host::to_word(value));
  const int lane = static_cast<int>(::inferkit::cuda_on_host::lane()), from = lane - static_cast<int>(by);
  return from >= (lane & ~(width - 1)) ? ::inferkit::cuda_on_host::from_word<T>(all[from]) : value;
}
inline unsigned __ballot_sync(uint32_t mask, int predicate) {
  const auto* all = ::inferkit::cuda_on_host::exchange(mask, predicate != 0);
  unsigned out = 0;
  for (unsigned i = 0; i < 32; ++i) out |= (mask >> i & 1) != 0 && all[i] != 0 ? 1u << i : 0u;
  return out;
}
inline int __reduce_max_sync(uint32_t mask, int value) {
  const auto* all = ::inferkit::cuda_on_host::exchange(mask, ::inferkit::cuda_on_host::to_word(value));
  int out = value;
  for (unsigned i = 0; i < 32; ++i) {
    const int v = ::inferkit::cuda_on_host::from_word<int>(all[i]);
    out = (mask >> i & 1) != 0 && v > out ? v : out;
  }
  return out;
}
inline int __any_sync(uint32_t mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }

// Threads of a block never run at the same time here, so plain operations are atomic.
template <class T>
T atomicAdd(T* at, T value) {
  const T before = *at;
  *at = before + value;
  return before;
}
template <class T>
T atomicMax(T* at, T value) {
  const T before = *at;
  if (value > before) *at = value;
  return before;
}

struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};

/// The upper half of the product.
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return static_cast<uint32_t>(uint64_t{a} * b >> 32); }

// One rounding each. The file is compiled without contraction, and runs where subnormals are flushed.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float __fsqrt_rn(float a) { return __builtin_sqrtf(a); }
inline int32_t __float_as_int(float v) {
  return ::inferkit::cuda_on_host::from_word<int32_t>(::inferkit::cuda_on_host::to_word(v));
}
inline float __int_as_float(int32_t v) {
  return ::inferkit::cuda_on_host::from_word<float>(::inferkit::cuda_on_host::to_word(v));
}
inline float __int2float_rn(int32_t v) { return static_cast<float>(v); }

namespace inferkit::cuda_on_host {

/// c += a b for a of 16 x 16 halves, b of 16 x 8 and c of 16 x 8 floats, which a warp holds as the PTX manual says of
/// mma.m16n8k16. Products are exact. They are added in the order in which the CPU's kernels add them (decision 045): of
/// each pair of terms the odd one first, each with one rounding. A device adds them in an order of its own.
template <class ToFloat>
void multiply_add(float (&c)[4], const Fragments& mine, const ToFloat& to_float) {
  const Fragments* const all = exchange_fragments(mine);
  const unsigned group = lane() / 4, within = lane() % 4;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned column = 2 * within + i % 2;
    for (unsigned pair = 0; pair < 8; ++pair) {
      const uint32_t a = all[4 * group + pair % 4].a[i / 2 + pair / 4 * 2];
      const uint32_t b = all[4 * column + pair % 4].b[pair / 4];
      for (unsigned half = 0; half < 2; ++half) {
        const unsigned shift = half == 0 ? 16 : 0;
        c[i] =
            __fmaf_rn(to_float(static_cast<uint16_t>(a >> shift)), to_float(static_cast<uint16_t>(b >> shift)), c[i]);
      }
    }
  }
}

}  // namespace inferkit::cuda_on_host
