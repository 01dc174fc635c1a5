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

/// A row that lies side by side and is short is read once, all loads at the same time, and kept in registers: element
/// 32 j + t as number j of thread t.
constexpr int kLongestKept = 1024;
template <int kSteps>
struct Kept {
  static constexpr int kEach = 2 * kSteps;  // of this thread: kSteps of each of its two lanes
  F32x16 of[kEach];
};

/// `left`: elements from the first of this thread on. (To compare it with constants takes no registers.)
template <int kSteps>
INFERKIT_DEVICE void read_row(const float* first, int left, Kept<kSteps>& out) {
#pragma unroll
  for (int j = 0; j < out.kEach; ++j) out.of[j].v = left > kWarp * j ? first[kWarp * j] : 0.0f;
}

/// As fold_row, of element(j) for number j of each thread. A row that is kept has one chunk in each lane.
template <class Op, int kSteps, class Element>
INFERKIT_DEVICE F32x16 fold_kept(int left, float start, F32x16 past, Element element) {
  static_assert(kLongestKept <= kSums * kLongestChunk);
  const int vectors_left = left + lane_of() % kCpuLanes;
  F32x16 acc[2] = {{start}, {start}};
#pragma unroll
  for (int j = 0; j < 2 * kSteps; ++j) {
    if (vectors_left > kWarp * j) acc[j % 2] = Op::combine(acc[j % 2], left > kWarp * j ? element(j) : past);
  }
  return fold_tree<Op>(acc[0], acc[1]);
}

/// The greatest element, NaN where there is one, in any order: as integers floats are ordered as they are as numbers if
/// those below zero are turned around, and NaN is put above all. Of both zeros, where largest() takes the one that its
/// order brings, this takes the positive one.
template <int kSteps>
INFERKIT_DEVICE F32x16 largest_kept(int left, const Kept<kSteps>& row) {
  F32x16 most{-__builtin_inff()};
#pragma unroll
  for (int j = 0; j < row.kEach; ++j) {
    if (left > kWarp * j) most = Larger::combine(most, row.of[j]);
  }
  const auto turned = [](int32_t bits) { return bits ^ (bits >> 31 & INT32_MAX); };
  const int32_t key = most.v != most.v ? INT32_MAX : turned(__float_as_int(most.v));
  return {__int_as_float(turned(__reduce_max_sync(kWholeWarp, key)))};  // INT32_MAX is a NaN
}

/// use(Kept) of as many steps as n <= kLongestKept elements need.
template <class Use>
INFERKIT_DEVICE void with_kept(int n, Use use) {
  if (n <= 1 * kSums) return use(Kept<1>{});
  if (n <= 2 * kSums) return use(Kept<2>{});
  if (n <= 4 * kSums) return use(Kept<4>{});
  if (n <= 8 * kSums) return use(Kept<8>{});
  use(Kept<16>{});
}

template <int kSteps>
INFERKIT_DEVICE void softmax_kept(const float* x, float* y, int left, bool log_of, Kept<kSteps> row) {
  const F32x16 low{-__builtin_inff()};
  read_row(x, left, row);
  // Where both zeros are greatest, the sum is at least 2: so it makes no difference which of them the peak is.
  const F32x16 peak = largest_kept(left, row), past = exp(low - peak);
#pragma unroll
  for (F32x16& v : row.of) v = log_of ? v - peak : exp(v - peak);
  const F32x16 total =
      fold_kept<Add, kSteps>(left, 0, past, [&](int j) { return log_of ? exp(row.of[j]) : row.of[j]; });
  const F32x16 by = log_of ? log(total) : F32x16{1.0f} / total;
#pragma unroll
  for (int j = 0; j < row.kEach; ++j) {
    if (left > kWarp * j) y[kWarp * j] = (log_of ? row.of[j] - by : row.of[j] * by).v;
  }
}

/// Of a row of any length, its elements `step` apart.
INFERKIT_DEVICE void softmax_long(const float* x, float* y, int64_t n, int64_t step, bool log_of) {
  const int lane = lane_of();
  const F32x16 low{-__builtin_inff()};
  const auto value = [&](int64_t i) { return F32x16{x[i * step]}; };
  const F32x16 peak = largest(n, value);
  const auto raised = [&](int64_t i) { return exp(value(i) - peak); };
  const F32x16 total = fold_row<Add>(n, 0, exp(low - peak), raised);
  const F32x16 by = log_of ? log(total) : F32x16{1.0f} / total;
  for (int64_t i = lane; i < n; i += kWarp) y[i * step] = (log_of ? (value(i) - peak) - by : raised(i) * by).v;
}

}  // namespace

INFERKIT_KERNEL(softmax_rows, SoftmaxParams, 128, 8) {
  for (int64_t row = first_row(); row < p.outer * p.inner; row += row_step()) {
    if (p.inner == 1 && p.n <= kLongestKept) {
      const auto n = static_cast<int>(p.n);
      const int64_t first = row * p.n + lane_of();
      with_kept(n, [&](auto kept) { softmax_kept(p.x + first, p.y + first, n - lane_of(), p.log, kept); });
    } else {
      const int64_t at = row / p.inner * p.n * p.inner + row % p.inner;
      softmax_long(p.x + at, p.y + at, p.n, p.inner, p.log);
    }
  }
}

namespace {

INFERKIT_DEVICE F32x16 root_of(F32x16 variance, float epsilon) {
  return sqrt((variance.v < 0 ? F32x16{0} : variance) + F32x16{epsilon});
}

/// A row whose elements have a scale and a bias each.
template <int kSteps>
INFERKIT_DEVICE void norm_kept(const NormParams& p, int64_t row, Kept<kSteps> v) {
  constexpr bool kKeepsScale = kSteps <= 8;  // as registers allow: what is loaded at once, is waited for once
  const int lane = lane_of(), left = static_cast<int>(p.n) - lane;
  Kept<kSteps> scale{}, bias{};
  read_row(p.x + row * p.n + lane, left, v);
  if (kKeepsScale && p.scale) read_row(p.scale + lane, left, scale);
  if (kKeepsScale && p.bias) read_row(p.bias + lane, left, bias);
  const F32x16 count{static_cast<float>(p.n)}, zero{0};
  const auto kept = [&](int j) { return v.of[j]; };
  const auto square = [&](int j) { return v.of[j] * v.of[j]; };
  F32x16 fine = zero, past = zero;
  if (p.center) {
    const F32x16 shift = fold_kept<Add, kSteps>(left, 0, zero, kept) / count;
    past = shift - shift;
#pragma unroll
    for (F32x16& e : v.of) e = e - shift;
    fine = fold_kept<Add, kSteps>(left, 0, past, kept) / count;
  }
  const F32x16 mean = fold_kept<Add, kSteps>(left, 0, past * past, square) / count;
  const F32x16 root = p.center ? root_of(mean - fine * fine, p.epsilon) : sqrt(mean + F32x16{p.epsilon});
  const F32x16 factor = F32x16{1.0f} / root;
  float* const y = p.y + row * p.n + lane;
#pragma unroll
  for (int j = 0; j < v.kEach; ++j) {
    if (left <= kWarp * j) continue;
    F32x16 out = (p.center ? v.of[j] - fine : v.of[j]) * factor;
    if (p.scale) out = out * (kKeepsScale ? scale.of[j] : F32x16{p.scale[kWarp * j + lane]});
    if (p.bias) out = out + (kKeepsScale ? bias.of[j] : F32x16{p.bias[kWarp * j + lane]});
    y[kWarp * j] = out.v;
  }
}

INFERKIT_DEVICE void norm_long(const NormParams& p, int64_t row) {
  const int lane = lane_of();
  const float* const x = p.x + row * p.n;
  float* const y = p.y + row * p.n;
  const F32x16 count{static_cast<float>(p.n)}, zero{0};
  const auto value = [&](int64_t i) { return F32x16{x[i]}; };
  F32x16 shift = zero, fine = zero, root = zero;
  if (p.center) {
    shift = fold_row<Add>(p.n, 0, zero, value) / count;
    const auto shifted = [&](int64_t i) { return value(i) - shift; };
    const auto square = [&](int64_t i) { return shifted(i) * shifted(i); };
    const F32x16 past = shift - shift;
    fine = fold_row<Add>(p.n, 0, past, shifted) / count;
    root = root_of(fold_row<Add>(p.n, 0, past * past, square) / count - fine * fine, p.epsilon);
  } else {
    const auto square = [&](int64_t i) { return value(i) * value(i); };
    root = sqrt(fold_row<Add>(p.n, 0, zero, square) / count + F32x16{p.epsilon});
  }
  const F32x16 factor = F32x16{1.0f} / root;
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

}  // namespace

INFERKIT_KERNEL(norm_rows, NormParams, 128, 4) {
  const bool kept = p.n <= kLongestKept && p.inner == 1 && p.groups == 1;
  for (int64_t row = first_row(); row < p.rows; row += row_step()) {
    if (kept) {
      const auto n = static_cast<int>(p.n);
      with_kept(n, [&](auto v) { norm_kept(p, row, v); });
    } else {
      norm_long(p, row);
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
