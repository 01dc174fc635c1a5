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

/// conv_bf16_tiled, conv_bf16_wide, conv_bf16_sliced, and the same of f16: cut as those of conv.h.
template <int kSide>
inline constexpr size_t kHalfConvShared = kHalfTileShared<kSide> + size_t{2} * kHalfDepth * 4 * sizeof(int32_t);
inline constexpr int kHalfTapWords = kHalfDepth * 4;
constexpr size_t half_conv_slice_shared(int slices) { return half_slice_shared(slices, kHalfTapWords); }

}  // namespace inferkit::kernels::cuda
