// What lowerings share that have tensor cores multiply halves: which precision they are for, and constants as pairs.
#pragma once
#include <cmath>
#include <limits>

#include "base/dtype.h"
#include "engine/cuda/launch.h"

namespace inferkit::cuda {

inline constexpr DType half_dtype(Precision precision) {
  return precision == Precision::kBf16 ? DType::kBF16 : DType::kF16;
}
inline constexpr std::string_view half_lowering(Precision precision) {
  return precision == Precision::kBf16 ? "cuda_bf16" : "cuda_float16";
}
/// A row beside the one for float32, which comes first.
inline void add_half(OpRegistry& r, std::string_view domain, std::string_view name, LowerFn lower, CostFn cost,
                     Precision precision) {
  r.add_lowering(domain, name,
                 {.name = half_lowering(precision),
                  .lower = lower,
                  .cost = cost,
                  .precision = precision,
                  .device = DeviceKind::kCuda});
}

/// As kernels round (kernels/cuda/mma.h): subnormals of float are zeros.
template <Precision kTo>
uint32_t half_bits(float v) {
  if (std::fabs(v) < std::numeric_limits<float>::min()) v = std::copysign(0.0f, v);
  if constexpr (kTo == Precision::kBf16) return to_bfloat16(v).bits;
  return to_half(v).bits;
}
template <Precision kTo>
uint32_t pair_of(float low, float high) {
  return half_bits<kTo>(low) | half_bits<kTo>(high) << 16;
}

}  // namespace inferkit::cuda
