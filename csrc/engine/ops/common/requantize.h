// From the exact int32 sums of a quantised product back to bytes: round(sum * left scale * right scale / result scale)
// + zero point, saturated.
#pragma once
#include "engine/compile/lower.h"

namespace inferkit {

/// Sums lie as [outer, channels, inner].
struct RequantizeParams {
  int64_t outer, channels, inner;
  int64_t rows;          // the left scale of outer index o is number o % rows * left_stride
  int64_t left_stride;   // 0 or 1
  int64_t right_stride;  // of the right scale over the channels: 0 or 1
};

/// `sums` is read; `bias` (int32, one per channel, added first) and `zero` (one byte) may be invalid.
void lower_requantize(LowerContext& c, const RequantizeParams& p, Ref out, Ref sums, Ref left_scale, Ref right_scale,
                      Ref scale, Ref zero, Ref bias);

}  // namespace inferkit
