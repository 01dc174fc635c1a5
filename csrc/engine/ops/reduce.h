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

/// The same of float32 at `x`, where the elements of `inner` rows lie side by side: [rows / inner, n, inner]. It is for
/// sums, means, products and extremes, of two elements or more.
void lower_reduce_columns(LowerContext& c, ReduceOp op, Ref x, int64_t rows, int64_t n, int64_t inner);
double reduce_columns_nanos(int64_t rows, int64_t n, int64_t inner);

}  // namespace inferkit
