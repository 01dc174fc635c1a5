// Elementwise kernels: functions of one float, arithmetic on two, comparisons, Where, Cast.
#pragma once
#include "kernels/cpu/binary/binary.h"
#include "kernels/cpu/vmath/vmath.h"
#include "kernels/cuda/nest.h"

namespace inferkit::kernels::cuda {

enum class Element : uint8_t { kF32, kI32, kI64, kBool };

/// Those that elementary_f32 has, and unary_f32 has not: they are computed in double, and take more registers.
inline constexpr bool is_elementary(Unary op) { return op >= Unary::kTan; }

/// y[i] = op(x[i]); y may be x. Every function of vmath.h.
struct UnaryParams {
  const float* x;
  float* y;
  int64_t n;
  float alpha, beta;
  Unary op;
};

/// y = x to the power of e over nest.n elements of y, or of `exponent` where e is null; operands of the nest: x, e.
struct PowerParams {
  const float *x, *e;
  float* y;
  Nest<2> nest;
  double exponent;
};

/// y[i] = x[i] cut to [*low, *high], each of which may be null; NaN where one of them is. Of float32, int32 or int64; y
/// may be x.
struct BoundsParams {
  const void *x, *low, *high;
  void* y;
  int64_t n;
  Element type;
};

/// y[i] = what the links make of x[i], one after another; y may be x.
inline constexpr int kMostLinks = 16, kLinkRegisters = 6;
enum class Link : uint8_t { kAdd, kSub, kMul, kDiv, kRelu, kSigmoid, kTanh, kClip };
struct ChainLinkParams {
  /// Where a value is: a register from 0 on, or one of these.
  static constexpr int8_t kNumber = -1, kX = -2, kY = -3;
  float numbers[2];  // in the place of a and b where those are numbers; of Clip, its bounds
  Link op;
  int8_t a, b, to;
};
struct ChainParams {
  const float* x;
  float* y;
  int64_t n;
  int32_t count;
  ChainLinkParams links[kMostLinks];
};

/// y = a op b over nest.n elements of y; operands of the nest: a, b.
struct BinaryParams {
  const float *a, *b;
  float* y;
  Nest<2> nest;
  Binary op;
};

enum class Compare : uint8_t { kEqual, kLess, kLessOrEqual, kGreater, kGreaterOrEqual };

/// y = a op b, as in BinaryParams, of elements of one type. Bools are only compared for being equal.
struct CompareParams {
  const void *a, *b;
  bool* y;
  Nest<2> nest;
  Element type;
  Compare op;
};

/// y[i] = whether x[i] is one of these.
struct ClassifyParams {
  const float* x;
  bool* y;
  int64_t n;
  bool nan, infinity, minus_infinity;
};

/// *found = 1 where an x[i] is neither finite nor allowed; else it stays.
struct ScanParams {
  const float* x;
  uint32_t* found;
  int64_t n;
  bool nan, infinity, minus_infinity;  // that are allowed
};

/// y = condition ? a : b over nest.n elements of `width` bytes (1, 2, 4 or 8); operands of the nest: condition, a, b.
struct SelectParams {
  const bool* condition;
  const void *a, *b;
  void* y;
  Nest<3> nest;
  int32_t width;
};

/// y[i] = x[i] of another type: floats saturate to integers and NaN becomes 0, integers wrap, what is not 0 is true.
struct CastParams {
  const void* x;
  void* y;
  int64_t n;
  Element from, to;
};

}  // namespace inferkit::kernels::cuda
