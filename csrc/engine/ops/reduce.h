// Reduction of contiguous rows, for the families that end in one (ReduceMean over trailing axes, GlobalAveragePool).
#pragma once
#include "engine/compile/lower.h"

namespace inferkit {

enum class ReduceOp : uint8_t { kSum, kMean, kMax, kMin, kProd, kL1, kL2, kLogSum, kLogSumExp, kSumSquare };

/// One step from input 0, seen as [rows, n], to the `rows` elements of output 0. Float32 runs 16 lanes and a fixed
/// tree; the other types accumulate in double, int64 or uint64, in order. A maximum, a sum or a mean of one element is
/// an alias.
void lower_reduce_rows(LowerContext& c, ReduceOp op, int64_t rows, int64_t n);
double reduce_rows_nanos(int64_t rows, int64_t n);

/// The same where the rows are the channels of images, which may lie in blocks: sixteen of them are then as many
/// columns of the elements of one.
void lower_reduce_channels(LowerContext& c, ReduceOp op, int64_t rows, int64_t n);
double reduce_channels_nanos(int64_t rows, int64_t n, bool in_blocks);

}  // namespace inferkit
