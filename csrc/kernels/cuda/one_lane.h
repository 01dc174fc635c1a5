// The operations of kernels/cpu/simd.h for one lane, which is a thread of a GPU: kernels/cpu/vmath/vmath_inl.h compiles
// over it unchanged, and gives the bits of the AVX2 and AVX-512 tiers. Every operation rounds once and by name, so that
// no compiler may fuse two. min and max are a < b ? a : b and a > b ? a : b: where an operand is NaN, the answer is b.
#pragma once
#include "kernels/cuda/platform.h"

#define INFERKIT_INLINE INFERKIT_DEVICE
#define INFERKIT_TIER cuda

namespace inferkit::kernels::cuda {
namespace {

struct F32x16 {
  float v;
};
struct I32x16 {
  int32_t v;
};
struct Mask16 {
  bool v;
};

INFERKIT_DEVICE F32x16 operator+(F32x16 a, F32x16 b) { return {__fadd_rn(a.v, b.v)}; }
INFERKIT_DEVICE F32x16 operator-(F32x16 a, F32x16 b) { return {__fsub_rn(a.v, b.v)}; }
INFERKIT_DEVICE F32x16 operator*(F32x16 a, F32x16 b) { return {__fmul_rn(a.v, b.v)}; }
INFERKIT_DEVICE F32x16 operator/(F32x16 a, F32x16 b) { return {__fdiv_rn(a.v, b.v)}; }
INFERKIT_DEVICE F32x16 operator-(F32x16 a) {
  return {__int_as_float(__float_as_int(a.v) ^ static_cast<int32_t>(0x80000000))};
}
INFERKIT_DEVICE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { return {__fmaf_rn(a.v, b.v, c.v)}; }
/// x86's min and max give zero for a subnormal operand that they choose; a comparison and a choice would give it as it
/// is, on a device and on the host.
INFERKIT_DEVICE float flushed(float v) {
  const int32_t bits = __float_as_int(v);
  return (bits & 0x7f800000) == 0 ? __int_as_float(bits & static_cast<int32_t>(0x80000000)) : v;
}
INFERKIT_DEVICE F32x16 min(F32x16 a, F32x16 b) { return {flushed(a.v < b.v ? a.v : b.v)}; }
INFERKIT_DEVICE F32x16 max(F32x16 a, F32x16 b) { return {flushed(a.v > b.v ? a.v : b.v)}; }
INFERKIT_DEVICE F32x16 sqrt(F32x16 a) { return {__fsqrt_rn(a.v)}; }
INFERKIT_DEVICE F32x16 round_even(F32x16 a) { return {rintf(a.v)}; }
INFERKIT_DEVICE F32x16 floor(F32x16 a) { return {floorf(a.v)}; }
INFERKIT_DEVICE F32x16 ceil(F32x16 a) { return {ceilf(a.v)}; }
INFERKIT_DEVICE F32x16 abs(F32x16 a) { return {__int_as_float(__float_as_int(a.v) & 0x7fffffff)}; }
INFERKIT_DEVICE F32x16 with_sign(F32x16 a, F32x16 b) {
  return {__int_as_float(__float_as_int(a.v) | (__float_as_int(b.v) & static_cast<int32_t>(0x80000000)))};
}
INFERKIT_DEVICE Mask16 operator<(F32x16 a, F32x16 b) { return {a.v < b.v}; }
INFERKIT_DEVICE Mask16 operator<=(F32x16 a, F32x16 b) { return {a.v <= b.v}; }
INFERKIT_DEVICE Mask16 operator>(F32x16 a, F32x16 b) { return {a.v > b.v}; }
INFERKIT_DEVICE Mask16 operator==(F32x16 a, F32x16 b) { return {a.v == b.v}; }
INFERKIT_DEVICE Mask16 is_nan(F32x16 a) { return {a.v != a.v}; }
INFERKIT_DEVICE F32x16 blend(Mask16 m, F32x16 yes, F32x16 no) { return {m.v ? yes.v : no.v}; }
/// v - 0, as on the other tiers: it flushes a subnormal.
INFERKIT_DEVICE F32x16 broadcast(float v) { return {__fsub_rn(v, 0.0f)}; }
INFERKIT_DEVICE I32x16 bits_of(F32x16 a) { return {__float_as_int(a.v)}; }
INFERKIT_DEVICE F32x16 float_of_bits(I32x16 a) { return {__int_as_float(a.v)}; }
INFERKIT_DEVICE F32x16 to_float(I32x16 a) { return {__int2float_rn(a.v)}; }
INFERKIT_DEVICE I32x16 operator+(I32x16 a, int32_t b) {
  return {static_cast<int32_t>(static_cast<uint32_t>(a.v) + static_cast<uint32_t>(b))};
}
INFERKIT_DEVICE I32x16 operator-(I32x16 a, I32x16 b) {
  return {static_cast<int32_t>(static_cast<uint32_t>(a.v) - static_cast<uint32_t>(b.v))};
}
INFERKIT_DEVICE I32x16 operator&(I32x16 a, int32_t b) { return {a.v & b}; }
INFERKIT_DEVICE I32x16 shift_left_23(I32x16 a) { return {static_cast<int32_t>(static_cast<uint32_t>(a.v) << 23)}; }
INFERKIT_DEVICE I32x16 shift_right_23(I32x16 a) { return {a.v >> 23}; }
INFERKIT_DEVICE I32x16 shift_right_1(I32x16 a) { return {a.v >> 1}; }

}  // namespace
}  // namespace inferkit::kernels::cuda
