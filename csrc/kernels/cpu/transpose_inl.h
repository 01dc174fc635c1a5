// Small transpositions in registers; for what packs.
#pragma once
#include "kernels/cpu/simd.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

/// Four rows of four become four columns.
INFERKIT_INLINE void transpose_4x4(const float* from, int64_t from_step, float* to, int64_t to_step) {
  typedef float Unaligned __attribute__((vector_size(16), aligned(4), may_alias));
  const F32x4 a = *(const Unaligned*)from, b = *(const Unaligned*)(from + from_step);
  const F32x4 c = *(const Unaligned*)(from + 2 * from_step), d = *(const Unaligned*)(from + 3 * from_step);
  const F32x4 ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const F32x4 cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  *(Unaligned*)to = __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5);
  *(Unaligned*)(to + to_step) = __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7);
  *(Unaligned*)(to + 2 * to_step) = __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5);
  *(Unaligned*)(to + 3 * to_step) = __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7);
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
