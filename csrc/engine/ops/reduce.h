// Reduction of contiguous rows, for the families that end in one (ReduceMean over trailing axes, GlobalAveragePool).
#pragma once
#include "engine/compile/lower.h"

namespace inferkit {

enum class ReduceOp : uint8_t { kSum, kMean, kMax, kMin, kProd, kL1, kL2, kLogSum, kLogSumExp, kSumSquare };

/// One step from input 0, seen as [rows, n], to the `rows` elements of output 0. Float32 runs 16 lanes and a fixed
/// tree; the other types accumulate in double, int64 or uint64, in order. A maximum, a sum or a mean of one element is
/// an alias.
void lower_reduce_rows(LowerContext& c, ReduceOp op, int64_t rows, int64_t n);

}  // namespace inferkit
