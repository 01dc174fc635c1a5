#include "kernels/cuda/functions.h"
#include "kernels/cuda/platform.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/warp.h"
#include "kernels/summation.h"

namespace inferkit::kernels::cuda {
namespace {

constexpr int kCpuLanes = 16, kSums = 64;

INFERKIT_DEVICE F32x16 from_lane(F32x16 v, int lane) { return {__shfl_sync(kWholeWarp, v.v, lane)}; }
INFERKIT_DEVICE F32x16 from_above(F32x16 v, int by) {
  return {__shfl_down_sync(kWholeWarp, v.v, static_cast<unsigned>(by))};
}

struct Add {
  INFERKIT_DEVICE F32x16 combine(F32x16 a, F32x16 b) { return a + b; }
  INFERKIT_DEVICE F32x16 last(F32x16 a, F32x16 b) { return a + b; }
};
struct Multiply {
  INFERKIT_DEVICE F32x16 combine(F32x16 a, F32x16 b) { return a * b; }
  INFERKIT_DEVICE F32x16 last(F32x16 a, F32x16 b) { return a * b; }
};
struct Larger {
  INFERKIT_DEVICE F32x16 combine(F32x16 a, F32x16 b) { return blend(is_nan(a), a, max(a, b)); }
  INFERKIT_DEVICE F32x16 last(F32x16 a, F32x16 b) { return blend(is_nan(a), a, max(a, b)); }
};
struct Smaller {
  INFERKIT_DEVICE F32x16 combine(F32x16 a, F32x16 b) { return blend(is_nan(a), a, min(a, b)); }
  INFERKIT_DEVICE F32x16 last(F32x16 a, F32x16 b) { return blend(is_nan(a), a, min(a, b)); }
};

/// What lane `lane` of the CPU's 64 holds of a row of n: fold_values of kernels/cpu/row/fold_impl.h. Of a vector of
/// sixteen that the row ends in, the lanes past its end count as `past`: adding zero is not nothing to a -0.
template <class Op, class Element>
INFERKIT_DEVICE F32x16 fold_lane(int lane, int64_t n, F32x16 start, F32x16 past, Element element) {
  const int64_t block = int64_t{kSums} * kLongestChunk;
  const int in_vector = lane % kCpuLanes;
  F32x16 total = start;
  for (int64_t from = 0; from == 0 || from < n; from += block) {
    const int64_t end = n - from < block ? n : from + block;
    F32x16 acc = start;
    for (int64_t i = from + lane; i - in_vector < end; i += kSums) acc = Op::combine(acc, i < end ? element(i) : past);
    total = from == 0 ? acc : Op::combine(total, acc);
  }
  return total;
}

/// The tree over 64 lanes, of which this thread holds two; the result is in every thread.
template <class Op>
INFERKIT_DEVICE F32x16 fold_tree(F32x16 low, F32x16 high) {
  low = Op::combine(low, from_above(low, 16));  // vectors 0 and 1, in the first sixteen threads
  high = Op::combine(high, from_above(high, 16));
  F32x16 v = Op::combine(low, high);
  for (int by = kCpuLanes / 2; by > 0; by /= 2) v = Op::last(v, from_above(v, by));
  return from_lane(v, 0);
}

template <class Op, class Element>
INFERKIT_DEVICE F32x16 fold_row(int64_t n, float start, F32x16 past, Element element) {
  const int lane = lane_of();
  const F32x16 neutral{start};
  const F32x16 low = fold_lane<Op>(lane, n, neutral, past, element);
  const F32x16 high = fold_lane<Op>(lane + kWarp, n, neutral, past, element);
  return fold_tree<Op>(low, high);
}

/// The greatest element, NaN where there is one.
template <class Element>
INFERKIT_DEVICE F32x16 largest(int64_t n, Element element) {
  const float low = -__builtin_inff();
  return fold_row<Larger>(n, low, F32x16{low}, element);
}

}  // namespace

INFERKIT_KERNEL(softmax_rows, SoftmaxParams, 128, 4) {
  const int lane = lane_of();
  const F32x16 low{-__builtin_inff()};
  for (int64_t row = first_row(); row < p.outer * p.inner; row += row_step()) {
    const int64_t at = row / p.inner * p.n * p.inner + row % p.inner;
    const float* const x = p.x + at;
    float* const y = p.y + at;
    const auto value = [&](int64_t i) { return F32x16{x[i * p.inner]}; };
    const F32x16 peak = largest(p.n, value);
    const auto raised = [&](int64_t i) { return exp(value(i) - peak); };
    if (p.log) {
      const F32x16 log_total = log(fold_row<Add>(p.n, 0, exp(low - peak), raised));
      for (int64_t i = lane; i < p.n; i += kWarp) y[i * p.inner] = ((value(i) - peak) - log_total).v;
      continue;
    }
    const F32x16 inverse = F32x16{1.0f} / fold_row<Add>(p.n, 0, exp(low - peak), raised);
    for (int64_t i = lane; i < p.n; i += kWarp) y[i * p.inner] = (raised(i) * inverse).v;
  }
}

INFERKIT_KERNEL(norm_rows, NormParams, 128, 4) {
  const int lane = lane_of();
  for (int64_t row = first_row(); row < p.rows; row += row_step()) {
    const float* const x = p.x + row * p.n;
    float* const y = p.y + row * p.n;
    const F32x16 count{static_cast<float>(p.n)}, zero{0}, one{1.0f}, epsilon{p.epsilon};
    const auto value = [&](int64_t i) { return F32x16{x[i]}; };
    F32x16 shift = zero, fine = zero, root = zero;
    if (p.center) {
      shift = fold_row<Add>(p.n, 0, zero, value) / count;
      const auto shifted = [&](int64_t i) { return value(i) - shift; };
      const auto square = [&](int64_t i) { return shifted(i) * shifted(i); };
      const F32x16 past = shift - shift;
      fine = fold_row<Add>(p.n, 0, past, shifted) / count;
      F32x16 variance = fold_row<Add>(p.n, 0, past * past, square) / count - fine * fine;
      if (variance.v < 0) variance = zero;
      root = sqrt(variance + epsilon);
    } else {
      const auto square = [&](int64_t i) { return value(i) * value(i); };
      root = sqrt(fold_row<Add>(p.n, 0, zero, square) / count + epsilon);
    }
    const F32x16 factor = one / root;
    const int64_t first = row % p.groups * p.per_group;
    const float *const scale = p.scale + first, *const bias = p.bias + first;
    for (int64_t i = lane; i < p.n; i += kWarp) {
      const F32x16 v = p.center ? (value(i) - shift) - fine : value(i);
      F32x16 out = v * factor;
      if (p.inner != 1) {  // neighbours with one scale are scaled and shifted in one rounding
        const int64_t k = i / p.inner;
        out = fma(out, F32x16{scale[k]}, F32x16{p.bias ? bias[k] : 0.0f});
      } else {
        if (p.scale) out = out * F32x16{scale[i]};
        if (p.bias) out = out + F32x16{bias[i]};
      }
      y[i] = out.v;
    }
  }
}

INFERKIT_KERNEL(reduce_rows, ReduceParams, 128, 4) {
  const int64_t n = p.reduced.n;
  for (int64_t row = first_row(); row < p.kept.n; row += row_step()) {
    int64_t at[1];
    offsets_of(p.kept, row, at);
    const float* const x = p.x + at[0];
    const auto value = [&](int64_t i) {
      int64_t in_row[1];
      offsets_of(p.reduced, i, in_row);
      return F32x16{x[in_row[0]]};
    };
    const F32x16 zero{0}, one{1.0f}, high{__builtin_inff()};
    F32x16 out = zero;
    switch (p.op) {
      case Reduce::kSum:
        out = fold_row<Add>(n, 0, zero, value);
        break;
      case Reduce::kMean:
        out = fold_row<Add>(n, 0, zero, value) / F32x16{static_cast<float>(n)};
        break;
      case Reduce::kMax:
        out = largest(n, value);
        break;
      case Reduce::kMin:
        out = fold_row<Smaller>(n, high.v, high, value);
        break;
      case Reduce::kSumSquares:
        out = fold_row<Add>(n, 0, zero, [&](int64_t i) { return value(i) * value(i); });
        break;
      case Reduce::kSumAbs:
        out = fold_row<Add>(n, 0, zero, [&](int64_t i) { return abs(value(i)); });
        break;
      case Reduce::kProduct:
        out = fold_row<Multiply>(n, 1.0f, one, value);
        break;
    }
    if (p.after == ReduceParams::After::kRoot) out = sqrt(out);
    if (p.after == ReduceParams::After::kLog) out = log(out);
    if (lane_of() == 0) p.y[row] = out.v;
  }
}

}  // namespace inferkit::kernels::cuda
