// Products of halves by tensor cores: floats are rounded to pairs of halves, which a warp multiplies as fragments. On
// the host they are what tests/cuda_on_host says they are.
#pragma once
#include "kernels/cuda/platform.h"

namespace inferkit::kernels::cuda {
namespace {

/// The type that operands are rounded to.
enum class Rounded : uint8_t { kBf16, kF16 };

/// Two terms, to the nearest, ties to even; `low` is the first. Subnormals of float become zeros: tensor cores would
/// take them as they are, where the CPU does not.
template <Rounded kTo>
INFERKIT_DEVICE uint32_t pair_of(float low, float high) {
#if defined(__CUDACC__)
  uint32_t out;
  // A subnormal is zero to an addition that flushes, and -0 changes nothing else.
  if constexpr (kTo == Rounded::kBf16) {
    asm("{\n .reg .f32 l, h;\n add.rn.ftz.f32 l, %1, 0f80000000;\n add.rn.ftz.f32 h, %2, 0f80000000;\n"
        " cvt.rn.bf16x2.f32 %0, h, l;\n}"
        : "=r"(out)
        : "f"(low), "f"(high));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %2, %1;" : "=r"(out) : "f"(low), "f"(high));  // they are far below the least half
  }
  return out;
#else
  const auto bits = kTo == Rounded::kBf16 ? ::inferkit::cuda_on_host::bf16_bits : ::inferkit::cuda_on_host::f16_bits;
  return bits(low) | static_cast<uint32_t>(bits(high)) << 16;
#endif
}

/// c += a b, where lane l holds, with g = l / 4 and t = l % 4: of a, 16 rows of 8 pairs, pair t of rows g and g + 8,
/// and pair t + 4 of them; of b, 8 pairs of 8 columns, pairs t and t + 4 of column g; of c, columns 2 t and 2 t + 1 of
/// row g and of row g + 8. All lanes of the warp come.
template <Rounded kTo>
INFERKIT_DEVICE void multiply_add(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(__CUDACC__)
#define INFERKIT_MMA(type)                                            \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type \
               ".f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},"            \
               "{%0,%1,%2,%3};"                                       \
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])       \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
  if constexpr (kTo == Rounded::kBf16) {
    INFERKIT_MMA("bf16");
  } else {
    INFERKIT_MMA("f16");
  }
#undef INFERKIT_MMA
#else
  ::inferkit::cuda_on_host::multiply_add(
      c, {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}},
      kTo == Rounded::kBf16 ? ::inferkit::cuda_on_host::float_of_bf16 : ::inferkit::cuda_on_host::float_of_f16);
#endif
}

/// Four words at an address that 16 divides, and two at one that 8 divides.
INFERKIT_DEVICE uint4 load_words(const uint32_t* at) {
#if !defined(__CUDACC__)
  ::inferkit::cuda_on_host::check_alignment(at, sizeof(uint4));
#endif
  return *reinterpret_cast<const uint4*>(at);
}
INFERKIT_DEVICE void store_words(uint32_t* at, const uint4& v) {
#if !defined(__CUDACC__)
  ::inferkit::cuda_on_host::check_alignment(at, sizeof(uint4));
#endif
  *reinterpret_cast<uint4*>(at) = v;
}
INFERKIT_DEVICE void store_words(uint32_t* at, const uint2& v) {
#if !defined(__CUDACC__)
  ::inferkit::cuda_on_host::check_alignment(at, sizeof(uint2));
#endif
  *reinterpret_cast<uint2*>(at) = v;
}

}  // namespace
}  // namespace inferkit::kernels::cuda
