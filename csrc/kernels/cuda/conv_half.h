// Convolutions on tensor cores: conv.h, with filters and windows that are rounded to bf16 or float16 as they come into
// shared memory (gemm_half.h).
#pragma once
#include "kernels/cuda/conv.h"

namespace inferkit::kernels::cuda {

struct HalfConvParams {
  ConvParams of;  // `chunk` is a multiple of 16
  /// The filters, where they are constant, in pairs: word (filter, k / 2) holds the elements k (in the low half) and
  /// k + 1 of the filter, with zeros behind the last. Null: they are `of.w`.
  const uint32_t* pairs;
  int32_t pairs_row;  // words from a filter to the next: half of k, rounded up to a multiple of 4
};

/// As ConvCut; the filters of a step are [filter][pair], its windows are floats, which are rounded as they are read.
/// With these pitches the lanes of a warp read from different banks.
template <int kQuads_>
struct HalfConvCut {
  static constexpr int kQuads = kQuads_, kDepth = 32, kStages = 3, kThreads = 128;
  static constexpr int kRows = 32 * kQuads, kColumns = 64 * kQuads, kPitch = kColumns + 4, kPairPitch = kDepth / 2 + 4;
  static constexpr int kFilterFloats = kRows * kPairPitch, kStepFloats = kFilterFloats + kDepth * kPitch;
  static_assert(kStages * kStepFloats >= kRows * kPitch);
};

/// conv_bf16_tiled, conv_bf16_wide, and the same of f16: cut as those of conv.h.
using HalfConvTiled = HalfConvCut<1>;
using HalfConvWide = HalfConvCut<2>;

}  // namespace inferkit::kernels::cuda
