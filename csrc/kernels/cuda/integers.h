// Kernels of integers and bools: arithmetic, logic, reductions. Integers wrap around, as on the CPU.
#pragma once
#include "kernels/cuda/elementwise.h"

namespace inferkit::kernels::cuda {

enum class Whole : uint8_t {
  kAdd,
  kSub,
  kMul,
  kDiv,           // truncated
  kTruncatedMod,  // with the sign of a
  kFlooredMod,    // with the sign of b
  kMin,
  kMax,
  kPrelu,
  kAnd,  // of bits, as are the next two; of bools, which are 0 or 1, that is logic
  kOr,
  kXor,
};

/// y = a op b over nest.n elements of y, of one type: int32, int64 or bool (the last three operations alone). A divisor
/// of 0 sets *fault to `step` + 1, unless an earlier step did, and gives 0.
struct WholeParams {
  const void *a, *b;
  void* y;
  uint32_t* fault;
  Nest<2> nest;
  uint32_t step;
  Element type;
  Whole op;
};

enum class WholeUnary : uint8_t { kNeg, kAbs, kSign, kRelu, kInvert, kNot };  // kInvert: all bits; kNot: of bools

/// y[i] = op(x[i]); y may be x.
struct WholeUnaryParams {
  const void* x;
  void* y;
  int64_t n;
  Element type;
  WholeUnary op;
};

enum class WholeReduce : uint8_t { kSum, kMean, kMax, kMin, kProduct, kSumAbs, kSumSquares };

/// y[i] = the reduction of reduced.n > 0 elements of x, int32 or int64, for kept.n outputs: in 64 bits, of which y
/// takes what it has. kMean: truncated, of int32 alone. Operand of both nests: x.
struct WholeReduceParams {
  const void* x;
  void* y;
  Nest<1> kept, reduced;
  Element type;
  WholeReduce op;
};

}  // namespace inferkit::kernels::cuda
