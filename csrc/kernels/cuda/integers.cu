#include "kernels/cuda/integers.h"
#include "kernels/cuda/platform.h"
#include "kernels/cuda/warp.h"

namespace inferkit::kernels::cuda {
namespace {

template <class T>
INFERKIT_DEVICE uint64_t wide(T v) {
  return static_cast<uint64_t>(v);  // modulo 2^64, then modulo the width of T
}

INFERKIT_DEVICE bool divides(Whole op) { return op >= Whole::kDiv && op <= Whole::kFlooredMod; }

/// a / b, or what is left, for a b that is not 0. The most negative number over -1 does not fit, and wraps.
template <class T>
INFERKIT_DEVICE T divided(Whole op, T a, T b) {
  if (op == Whole::kDiv) return b == -1 ? static_cast<T>(0 - wide(a)) : static_cast<T>(a / b);
  const T rest = b == -1 ? T{0} : static_cast<T>(a % b);
  return op == Whole::kFlooredMod && rest != 0 && (rest < 0) != (b < 0) ? static_cast<T>(rest + b) : rest;
}

template <class T>
INFERKIT_DEVICE T apply_whole(Whole op, T a, T b) {
  switch (op) {
    case Whole::kAdd:
      return static_cast<T>(wide(a) + wide(b));
    case Whole::kSub:
      return static_cast<T>(wide(a) - wide(b));
    case Whole::kMul:
      return static_cast<T>(wide(a) * wide(b));
    case Whole::kMin:
      return a < b ? a : b;
    case Whole::kMax:
      return a > b ? a : b;
    case Whole::kPrelu:
      return a < 0 ? static_cast<T>(wide(a) * wide(b)) : a;
    case Whole::kAnd:
      return static_cast<T>(a & b);
    case Whole::kOr:
      return static_cast<T>(a | b);
    case Whole::kXor:
      return static_cast<T>(a ^ b);
    default:
      return divided(op, a, b);
  }
}

template <class T>
INFERKIT_DEVICE void put_whole(const WholeParams& p, int64_t i, int64_t at_a, int64_t at_b) {
  const T a = static_cast<const T*>(p.a)[at_a], b = static_cast<const T*>(p.b)[at_b];
  T* const y = static_cast<T*>(p.y) + i;
  if (divides(p.op) && b == 0) {
    if (*p.fault == 0) *p.fault = p.step + 1;
    *y = 0;
    return;
  }
  *y = apply_whole(p.op, a, b);
}

}  // namespace

INFERKIT_KERNEL(binary_whole, WholeParams, 256, 4) {
  for (int64_t i = first_element(); i < p.nest.n; i += element_step()) {
    int64_t at[2];
    offsets_of(p.nest, i, at);
    if (p.type == Element::kI32) {
      put_whole<int32_t>(p, i, at[0], at[1]);
    } else if (p.type == Element::kI64) {
      put_whole<int64_t>(p, i, at[0], at[1]);
    } else {
      put_whole<int8_t>(p, i, at[0], at[1]);
    }
  }
}

namespace {

template <class T>
INFERKIT_DEVICE T apply_whole(WholeUnary op, T v) {
  switch (op) {
    case WholeUnary::kNeg:
      return static_cast<T>(0 - wide(v));  // the lowest stays
    case WholeUnary::kAbs:
      return v < 0 ? static_cast<T>(0 - wide(v)) : v;
    case WholeUnary::kSign:
      return static_cast<T>((v > 0) - (v < 0));
    case WholeUnary::kRelu:
      return v < 0 ? T{0} : v;
    case WholeUnary::kInvert:
      return static_cast<T>(~v);
    case WholeUnary::kNot:
      return static_cast<T>(v == 0);
  }
  return v;
}
template <class T>
INFERKIT_DEVICE void put_whole(const WholeUnaryParams& p, int64_t i) {
  static_cast<T*>(p.y)[i] = apply_whole(p.op, static_cast<const T*>(p.x)[i]);
}

}  // namespace

INFERKIT_KERNEL(unary_whole, WholeUnaryParams, 256, 4) {
  for (int64_t i = first_element(); i < p.n; i += element_step()) {
    if (p.type == Element::kI32) {
      put_whole<int32_t>(p, i);
    } else if (p.type == Element::kI64) {
      put_whole<int64_t>(p, i);
    } else {
      put_whole<int8_t>(p, i);
    }
  }
}

namespace {

INFERKIT_DEVICE int64_t start_of(const WholeReduceParams& p) {
  if (p.op == WholeReduce::kProduct) return 1;
  if (p.op == WholeReduce::kMax) return p.type == Element::kI32 ? INT32_MIN : INT64_MIN;
  if (p.op == WholeReduce::kMin) return p.type == Element::kI32 ? INT32_MAX : INT64_MAX;
  return 0;
}
/// What an element counts as.
INFERKIT_DEVICE int64_t element_of(WholeReduce op, int64_t v) {
  if (op == WholeReduce::kSumAbs) return v < 0 ? static_cast<int64_t>(0 - wide(v)) : v;
  if (op == WholeReduce::kSumSquares) return static_cast<int64_t>(wide(v) * wide(v));
  return v;
}
/// In any order the same.
INFERKIT_DEVICE int64_t combined(WholeReduce op, int64_t a, int64_t b) {
  if (op == WholeReduce::kMax) return a > b ? a : b;
  if (op == WholeReduce::kMin) return a < b ? a : b;
  if (op == WholeReduce::kProduct) return static_cast<int64_t>(wide(a) * wide(b));
  return static_cast<int64_t>(wide(a) + wide(b));
}
INFERKIT_DEVICE int64_t whole_at(const WholeReduceParams& p, int64_t i) {
  return p.type == Element::kI32 ? static_cast<const int32_t*>(p.x)[i] : static_cast<const int64_t*>(p.x)[i];
}

}  // namespace

INFERKIT_KERNEL(reduce_whole, WholeReduceParams, 128, 4) {
  const int lane = lane_of();
  for (int64_t row = first_row(); row < p.kept.n; row += row_step()) {
    int64_t at[1];
    offsets_of(p.kept, row, at);
    int64_t out = start_of(p);
    for (int64_t i = lane; i < p.reduced.n; i += kWarp) {
      int64_t in_row[1];
      offsets_of(p.reduced, i, in_row);
      out = combined(p.op, out, element_of(p.op, whole_at(p, at[0] + in_row[0])));
    }
    for (int with = kWarp / 2; with > 0; with /= 2) {
      out = combined(p.op, out, from_partner(out, with));
    }
    if (p.op == WholeReduce::kMean) out /= p.reduced.n;
    if (lane != 0) continue;
    if (p.type == Element::kI32) {
      static_cast<int32_t*>(p.y)[row] = static_cast<int32_t>(wide(out));
    } else {
      static_cast<int64_t*>(p.y)[row] = out;
    }
  }
}

}  // namespace inferkit::kernels::cuda
