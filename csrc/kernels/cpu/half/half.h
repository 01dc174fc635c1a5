// float16 and bfloat16 to float and back, a row at a time. Rounding is to nearest even; a NaN stays a NaN and becomes
// quiet. Every tier gives the same bits.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace inferkit {
enum class Isa : uint8_t;
struct Half;
struct BFloat16;
}  // namespace inferkit

namespace inferkit::kernels {

/// Any alignment; x and y must not overlap.
struct HalfKernels {
  const char* (*compiled_isa)();
  void (*widen_f16)(const Half* x, float* y, int64_t n);
  void (*widen_bf16)(const BFloat16* x, float* y, int64_t n);
  void (*narrow_f16)(const float* x, Half* y, int64_t n);
  void (*narrow_bf16)(const float* x, BFloat16* y, int64_t n);
};

const HalfKernels& half_kernels();  // of the active tier
const HalfKernels& half_kernels(Isa isa);

inline void widen(const Half* x, float* y, int64_t n) { half_kernels().widen_f16(x, y, n); }
inline void widen(const BFloat16* x, float* y, int64_t n) { half_kernels().widen_bf16(x, y, n); }
inline void narrow(const float* x, Half* y, int64_t n) { half_kernels().narrow_f16(x, y, n); }
inline void narrow(const float* x, BFloat16* y, int64_t n) { half_kernels().narrow_bf16(x, y, n); }

}  // namespace inferkit::kernels
