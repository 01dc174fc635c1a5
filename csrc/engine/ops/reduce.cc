// ReduceSum, ReduceMean, ReduceMax, ReduceMin, ReduceProd, ReduceL1, ReduceL2, ReduceLogSum, ReduceLogSumExp,
// ReduceSumSquare. The order of every sum follows from the reduced dimensions alone.
#include "engine/ops/reduce.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "engine/compile/layouts.h"
#include "engine/compile/op_registry.h"
#include "engine/compile/strided.h"
#include "engine/ops/common/transpose_tile.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/wrap.h"
#include "kernels/cpu/row/row.h"
#include "kernels/cpu/vmath/vmath.h"
#include "kernels/summation.h"
#include "platform/run_control.h"
#include "platform/thread_pool.h"

namespace inferkit {
namespace {

constexpr std::array<std::string_view, 10> kNames = {"ReduceSum",       "ReduceMean",     "ReduceMax", "ReduceMin",
                                                     "ReduceProd",      "ReduceL1",       "ReduceL2",  "ReduceLogSum",
                                                     "ReduceLogSumExp", "ReduceSumSquare"};
constexpr int64_t kParallelElements = 1 << 17;  // below this a second thread costs more than it brings

ReduceOp op_of(const NodeContext& c) {
  return static_cast<ReduceOp>(std::find(kNames.begin(), kNames.end(), c.node().op_type) - kNames.begin());
}

/// Which dimensions go.
std::array<bool, Shape::kMaxRank> reduced_axes(const NodeContext& c) {
  const bool by_input = c.version() >= (op_of(c) == ReduceOp::kSum ? 13 : 18);
  std::vector<int64_t> axes;
  if (by_input) {
    if (c.has_attr("axes")) c.fail("axes is an input in this opset, not an attribute");
    if (c.has_input(1)) axes = c.const_ints(1);
  } else {
    if (c.input_count() > 1) c.fail("axes is an attribute in this opset, not an input");
    axes = c.attr_ints("axes");
  }
  const size_t rank = c.input(0).shape.rank();
  std::array<bool, Shape::kMaxRank> out{};
  const bool all = axes.empty() && !(by_input && c.attr_int("noop_with_empty_axes", 0) != 0);
  for (size_t i = 0; i < rank; ++i) out[i] = all;
  for (int64_t axis : axes) out[static_cast<size_t>(c.resolve_axis(axis, static_cast<int64_t>(rank)))] = true;
  return out;
}

void infer_reduce(InferContext& c) {
  require_type(c, 0, kAllTypes);  // before what only a run may know
  const auto reduced = reduced_axes(c);
  const TensorFacts& x = c.input(0);
  const bool keep = c.attr_int("keepdims", 1) != 0;
  Shape out;
  for (size_t i = 0; i < x.shape.rank(); ++i) {
    if (!reduced[i])
      out.push_back(x.shape[i]);
    else if (keep)
      out.push_back(1);
  }
  c.set_output(0, x.dtype, out);
}

// ---- Any type, any axes ---------------------------------------------------------------------------------------------

/// What sums of a T, and comparisons of it, are made in.
template <class T>
using Wide = std::conditional_t<std::is_floating_point_v<Compute<T>>, double,
                                std::conditional_t<std::is_signed_v<Compute<T>>, int64_t, uint64_t>>;

template <class T, class W>
T narrow(W v) {
  if constexpr (std::is_same_v<T, bool>) {
    return v != 0;
  } else if constexpr (std::is_floating_point_v<Compute<T>>) {
    return store<T>(static_cast<Compute<T>>(v));
  } else if constexpr (std::is_floating_point_v<W>) {  // a logarithm or a root of integers
    using Limits = std::numeric_limits<T>;
    if (!(v > static_cast<double>(Limits::lowest()))) return Limits::lowest();
    return v >= static_cast<double>(Limits::max()) ? Limits::max() : static_cast<T>(v);
  } else {
    return static_cast<T>(v);
  }
}

/// How elements of some type are read and written: the reductions themselves are compiled for the few types of W only.
template <class W>
struct Elements {
  void (*widen)(const std::byte* x, int64_t stride, int64_t count, W* to);
  void (*put)(std::byte* y, int64_t i, W v);
  void (*put_real)(std::byte* y, int64_t i, double v);
  W lowest, highest;
  int64_t size;
};

template <class T>
struct ElementsOf {
  using W = Wide<T>;
  using Limits = std::numeric_limits<std::conditional_t<std::is_floating_point_v<W>, W, Compute<T>>>;

  static void widen(const std::byte* x, int64_t stride, int64_t count, W* to) {
    const T* from = reinterpret_cast<const T*>(x);
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<W>(load(from[i * stride]));
  }
  template <class V>
  static void put(std::byte* y, int64_t i, V v) {
    reinterpret_cast<T*>(y)[i] = narrow<T>(v);
  }
  static constexpr Elements<W> kElements = {widen,
                                            put<W>,
                                            put<double>,
                                            Limits::has_infinity ? -Limits::infinity() : Limits::lowest(),
                                            Limits::has_infinity ? Limits::infinity() : Limits::max(),
                                            sizeof(T)};
};

template <class W>
struct GenericParams {
  ReduceOp op;
  int64_t count;  // elements that one output is reduced from
  LoopNest<1> kept, reduced;
  const Elements<W>* elements;
};

/// f(elements, how many) for the elements at `x`, in order.
template <class W, class F>
void for_each_block(const GenericParams<W>& p, const std::byte* x, F&& f) {
  constexpr int64_t kBlock = 128;
  const int64_t n = p.reduced.inner(), stride = p.reduced.inner_stride(0), size = p.elements->size;
  W block[kBlock];
  for_each_run(p.reduced, [&](const std::array<int64_t, 1>& offset, int64_t) {
    for (int64_t first = 0; first < n; first += kBlock) {
      const int64_t count = std::min(kBlock, n - first);
      p.elements->widen(x + (offset[0] + first * stride) * size, stride, count, block);
      f(block, count);
    }
  });
}

/// Folds f over the elements at `x`: acc = f(acc, element), in order.
template <class A, class W, class F>
A fold(const GenericParams<W>& p, const std::byte* x, A acc, F&& f) {
  for_each_block(p, x, [&](const W* block, int64_t count) {
    for (int64_t i = 0; i < count; ++i) acc = f(acc, block[i]);
  });
  return acc;
}

/// The best of `best` and n elements, as if they came one after the other: of equals, zeros of both signs among them,
/// the first, and NaN once there was one.
template <bool kMax, class W>
W best_of(const W* v, int64_t n, W best) {
  constexpr int64_t kLanes = 4;
  const auto better = [](W a, W b) { return kMax ? a > b : a < b; };
  if (n >= 2 * kLanes) {
    W top[kLanes];
    int64_t unordered[kLanes] = {};
    std::copy_n(v, kLanes, top);
    for (int64_t i = 0; i + kLanes <= n; i += kLanes) {
      for (int64_t l = 0; l < kLanes; ++l) {
        top[l] = better(v[i + l], top[l]) ? v[i + l] : top[l];
        unordered[l] |= v[i + l] != v[i + l] ? -1 : 0;
      }
    }
    for (int64_t l = 1; l < kLanes; ++l) {
      top[0] = better(top[l], top[0]) ? top[l] : top[0];
      unordered[0] |= unordered[l];
    }
    if (unordered[0] == 0) {
      if (better(top[0], best)) best = top[0] == 0 ? *std::find(v, v + n / kLanes * kLanes, W{0}) : top[0];
      v += n / kLanes * kLanes;
      n %= kLanes;
    }
  }
  for (int64_t i = 0; i < n; ++i) best = better(v[i], best) || v[i] != v[i] ? v[i] : best;
  return best;
}

template <bool kMax, class W>
W extreme(const GenericParams<W>& p, const std::byte* x, W best) {
  for_each_block(p, x, [&](const W* block, int64_t count) { best = best_of<kMax>(block, count, best); });
  return best;
}

/// y[i] = the reduction of the elements at `x`.
template <class W>
void reduce_one(const GenericParams<W>& p, const std::byte* x, std::byte* y, int64_t i) {
  const Elements<W>& e = *p.elements;
  const auto square = [](auto v) { return wrap_mul(v, v); };
  const auto real = [](W v) { return static_cast<double>(v); };
  switch (p.op) {
    case ReduceOp::kSum:
      return e.put(y, i, fold(p, x, W{0}, [](W a, W v) { return wrap_add(a, v); }));
    case ReduceOp::kMean:
      if constexpr (std::is_floating_point_v<W>) {
        return e.put(y, i, fold(p, x, W{0}, [](W a, W v) { return a + v; }) / static_cast<W>(p.count));
      } else {  // exact before it is truncated
        if (p.count == 0) return e.put(y, i, 0);
        const __int128 sum = fold(p, x, __int128{0}, [](__int128 a, W v) { return a + v; });
        return e.put(y, i, static_cast<W>(sum / p.count));
      }
    case ReduceOp::kMax:
      return e.put(y, i, extreme<true>(p, x, e.lowest));
    case ReduceOp::kMin:
      return e.put(y, i, extreme<false>(p, x, e.highest));
    case ReduceOp::kProd:
      return e.put(y, i, fold(p, x, W{1}, [](W a, W v) { return wrap_mul(a, v); }));
    case ReduceOp::kL1:
      return e.put(y, i, fold(p, x, W{0}, [](W a, W v) { return wrap_add(a, v < 0 ? wrap_mul(v, W(-1)) : v); }));
    case ReduceOp::kL2:
      return e.put_real(y, i, std::sqrt(fold(p, x, 0.0, [&](double a, W v) { return a + square(real(v)); })));
    case ReduceOp::kSumSquare:
      return e.put(y, i, fold(p, x, W{0}, [&](W a, W v) { return wrap_add(a, square(v)); }));
    case ReduceOp::kLogSum:
      return e.put_real(y, i, std::log(fold(p, x, 0.0, [&](double a, W v) { return a + real(v); })));
    case ReduceOp::kLogSumExp: {
      constexpr double kInf = std::numeric_limits<double>::infinity();
      const double top = fold(p, x, -kInf, [&](double a, W v) { return real(v) > a || v != v ? real(v) : a; });
      if (!(std::abs(top) < kInf)) return e.put_real(y, i, top);
      const double sum = fold(p, x, 0.0, [&](double a, W v) { return a + std::exp(real(v) - top); });
      return e.put_real(y, i, top + std::log(sum));
    }
  }
}

template <class W>
void run_generic(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const GenericParams<W>*>(params);
  const int64_t stride = p.kept.inner_stride(0);
  WorkMeter meter;
  for_each_run(p.kept, [&](const std::array<int64_t, 1>& offset, int64_t run) {
    const int64_t first = run * p.kept.inner();
    for (int64_t i = 0; i < p.kept.inner() && meter.go_on(p.count); ++i) {
      reduce_one(p, io[0] + (offset[0] + i * stride) * p.elements->size, io[1], first + i);
    }
  });
}

kernels::Reduce row_kernel(ReduceOp op) {
  using kernels::Reduce;
  switch (op) {
    case ReduceOp::kMean:
      return Reduce::kMean;
    case ReduceOp::kMax:
      return Reduce::kMax;
    case ReduceOp::kMin:
      return Reduce::kMin;
    case ReduceOp::kProd:
      return Reduce::kProduct;
    case ReduceOp::kL1:
      return Reduce::kSumAbs;
    case ReduceOp::kL2:
    case ReduceOp::kSumSquare:
      return Reduce::kSumSquares;
    default:
      return Reduce::kSum;
  }
}

/// What follows the kernel for columns; null where nothing does.
kernels::UnaryFn after_columns(ReduceOp op) {
  if (op == ReduceOp::kL2) return kernels::unary_fn(kernels::Unary::kSqrt);
  return op == ReduceOp::kLogSum ? kernels::unary_fn(kernels::Unary::kLog) : nullptr;
}

// ---- Float32, contiguous rows ---------------------------------------------------------------------------------------

struct RowParams {
  int64_t rows, n;
  kernels::ReduceFn fn;
  ReduceOp op;
};

// Rows this short are turned, and are columns then: a vector that holds one of them would mostly be idle.
constexpr int64_t kShortRow = 16, kTurnedRows = 128;

/// log(sum(exp x)), with the exponentials of a chunk of the row's sum at a time; the chunks are added in double, as the
/// logarithm of a sum near 1 shows all of its error.
float log_sum_exp(const float* x, int64_t n) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const float top = kernels::reduce_fn(kernels::Reduce::kMax)(x, n);
  if (!(std::abs(top) < kInf)) return top;
  const auto sum = kernels::reduce_fn(kernels::Reduce::kSum);
  const auto exp = kernels::unary_fn(kernels::Unary::kExp);
  double total = 0;
  alignas(64) float chunk[kernels::kLongestChunk];
  for (int64_t first = 0; first < n; first += kernels::kLongestChunk) {
    const int64_t count = std::min(kernels::kLongestChunk, n - first);
    for (int64_t i = 0; i < count; ++i) chunk[i] = x[first + i] - top;
    exp(chunk, chunk, count, 0, 0);
    total += static_cast<double>(sum(chunk, count));
  }
  return static_cast<float>(static_cast<double>(top) + std::log(total));
}

float reduce_row(const RowParams& p, const float* x) {
  switch (p.op) {
    case ReduceOp::kL2:
      return std::sqrt(p.fn(x, p.n));
    case ReduceOp::kLogSum: {
      float sum = p.fn(x, p.n);
      kernels::unary_fn(kernels::Unary::kLog)(&sum, &sum, 1, 0, 0);
      return sum;
    }
    case ReduceOp::kLogSumExp:
      return log_sum_exp(x, p.n);
    default:
      return p.fn(x, p.n);
  }
}

/// Rows [first, last) that have a kernel for columns, which gives them the same bits.
void reduce_short_rows(const RowParams& p, const float* x, int64_t first, int64_t last, float* y) {
  alignas(64) float turned[kShortRow * kTurnedRows];
  const auto fn = kernels::reduce_columns_fn(row_kernel(p.op));
  const kernels::UnaryFn after = after_columns(p.op);
  for (; first < last; first += kTurnedRows) {
    const int64_t count = std::min(kTurnedRows, last - first);
    transpose(x + first * p.n, p.n, turned, kTurnedRows, p.n, count);
    fn(turned, p.n, kTurnedRows, count, y + first);
    if (after) after(y + first, y + first, count, 0, 0);
  }
}

void run_rows(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const RowParams*>(params);
  const float* x = reinterpret_cast<const float*>(io[0]);
  float* y = reinterpret_cast<float*>(io[1]);
  const bool short_rows = p.n > 0 && p.n <= kShortRow && p.rows > 1 && p.op != ReduceOp::kLogSumExp;
  const auto rows = [&](int64_t first, int64_t last) {
    if (short_rows) return reduce_short_rows(p, x, first, last, y);
    for (int64_t i = first; i < last; ++i) y[i] = reduce_row(p, x + i * p.n);
  };
  if (!context.pool || context.max_threads < 2 || p.rows * p.n < kParallelElements) {
    WorkMeter meter;
    for_blocks(meter, 0, p.rows, std::max<int64_t>(1, p.n), rows);
    return;
  }
  const int64_t block = std::max<int64_t>(1, (kParallelElements / 4) / std::max<int64_t>(1, p.n));
  context.pool->parallel_for((p.rows + block - 1) / block, context.max_threads,
                             [&](int64_t i) { rows(i * block, std::min(p.rows, (i + 1) * block)); });
}

// ---- Float32, [outer, n, inner] over n ------------------------------------------------------------------------------

struct ColumnParams {
  int64_t outer, n, inner;
  kernels::ReduceColumnsFn fn;
  kernels::UnaryFn after;  // null where there is none
};

constexpr int64_t kColumnBlock = 1024;

void run_columns(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const ColumnParams*>(params);
  const float* x = reinterpret_cast<const float*>(io[0]);
  float* y = reinterpret_cast<float*>(io[1]);
  const int64_t blocks = (p.inner + kColumnBlock - 1) / kColumnBlock;
  const auto block = [&](int64_t i) {
    const int64_t o = i / blocks, first = i % blocks * kColumnBlock;
    const int64_t width = std::min(kColumnBlock, p.inner - first);
    float* to = y + o * p.inner + first;
    p.fn(x + o * p.n * p.inner + first, p.n, p.inner, width, to);
    if (p.after) p.after(to, to, width, 0, 0);
  };
  if (context.pool && context.max_threads > 1 && p.outer * p.n * p.inner >= kParallelElements)
    context.pool->parallel_for(p.outer * blocks, context.max_threads, block);
  else
    for_parts(p.outer * blocks, block);
}

// ---- Float32, any axes ----------------------------------------------------------------------------------------------

struct GatheredParams {
  RowParams row;  // of one output
  LoopNest<1> kept, reduced;
};

/// io: x, y, scratch for the elements of one output, which then are a row.
void run_gathered(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const GatheredParams*>(params);
  const float* x = reinterpret_cast<const float*>(io[0]);
  float *y = reinterpret_cast<float*>(io[1]), *row = reinterpret_cast<float*>(io[2]);
  const int64_t n = p.reduced.inner(), step = p.reduced.inner_stride(0), stride = p.kept.inner_stride(0);
  WorkMeter meter;
  for_each_run(p.kept, [&](const std::array<int64_t, 1>& offset, int64_t run) {
    float* out = y + run * p.kept.inner();
    for (int64_t i = 0; i < p.kept.inner() && meter.go_on(p.row.n); ++i) {
      const float* from = x + offset[0] + i * stride;
      for_each_run(p.reduced, [&](const std::array<int64_t, 1>& start, int64_t line) {
        for (int64_t j = 0; j < n; ++j) row[line * n + j] = from[start[0] + j * step];
      });
      out[i] = reduce_row(p.row, row);
    }
  });
}

// ---- The ways -------------------------------------------------------------------------------------------------------

/// Of one element it is that element, as if reshaped: also -0, which a sum that begins with 0 would lose, and a
/// subnormal, which all arithmetic takes for zero.
bool keeps_one_element(ReduceOp op) {
  return op == ReduceOp::kSum || op == ReduceOp::kMean || op == ReduceOp::kMax || op == ReduceOp::kMin ||
         op == ReduceOp::kProd || op == ReduceOp::kLogSumExp;
}

/// Dimensions of 1 change nothing, and neighbours of one kind are one dimension: what is left is a short word such as
/// KR (rows) or KRK (columns). A leading K may be missing, so a batch of one takes the path of a larger one.
struct Reduction {
  ReduceOp op;
  Shape kept, gone;
  Strides kept_strides{}, gone_strides{};
  std::string word;
  int64_t dims[Shape::kMaxRank] = {};  // of the word's letters

  int64_t count() const { return gone.elements(); }
  bool is_alias() const { return count() == 1 && keeps_one_element(op); }
  bool is_rows() const { return word == "R" || word == "KR" || word == "K" || word.empty(); }
  bool is_columns() const { return word == "RK" || word == "KRK"; }
  int64_t outer() const { return word == "RK" ? 1 : dims[0]; }
  int64_t reduced() const { return dims[word == "RK" ? 0 : 1]; }
  int64_t inner() const { return dims[word == "RK" ? 1 : 2]; }
};

Reduction reduction_of(const NodeContext& c) {
  Reduction out;
  out.op = op_of(c);
  const Shape& x = c.input(0).shape;
  const auto reduced = reduced_axes(c);
  const auto strides = x.strides();
  for (size_t i = 0; i < x.rank(); ++i) {
    (reduced[i] ? out.gone_strides[out.gone.rank()] : out.kept_strides[out.kept.rank()]) = strides[i];
    (reduced[i] ? out.gone : out.kept).push_back(x[i]);
    if (x[i] == 1) continue;
    const char kind = reduced[i] ? 'R' : 'K';
    if (out.word.empty() || out.word.back() != kind) {
      out.word += kind;
      out.dims[out.word.size() - 1] = 1;
    }
    out.dims[out.word.size() - 1] *= x[i];
  }
  return out;
}

Cost alias_cost(const NodeContext& c) {
  if (!keeps_one_element(op_of(c))) return Cost::cannot("of one element it is not that element");
  return reduction_of(c).is_alias() ? Cost(0) : Cost::cannot("more than one element, or none, is reduced");
}
void lower_alias(LowerContext& c) { c.alias(0, 0); }
constexpr Cost kNothingToDo = Cost::cannot("one element is reduced, and is the answer");

Cost rows_cost(const NodeContext& c) {
  const Reduction r = reduction_of(c);
  if (r.count() == 0) return Cost::cannot("nothing is reduced");
  if (r.is_alias()) return kNothingToDo;
  if (!r.is_rows()) return Cost::cannot("what is reduced does not lie in rows");
  return Cost(reduce_rows_nanos(r.kept.elements(), r.count()));
}

/// Is it all of an image that is reduced, and no channel or batch? Then the image may lie in blocks.
bool reads_blocks(const NodeContext& c, const Reduction& r) {
  const Shape& x = c.input(0).shape;
  return r.gone.rank() + 2 == x.rank() && r.kept == Shape{x[0], x[1]} && r.op != ReduceOp::kLogSumExp;
}

void lower_rows(LowerContext& c) {
  const Reduction r = reduction_of(c);
  const auto lower = reads_blocks(c, r) ? lower_reduce_channels : lower_reduce_rows;
  lower(c, r.op, r.kept.elements(), r.count());
}

double rows_blocks_nanos(const NodeContext& c, bool in_blocks, bool) {
  const Reduction r = reduction_of(c);
  if (in_blocks && !reads_blocks(c, r)) return std::numeric_limits<double>::infinity();
  return reduce_channels_nanos(r.kept.elements(), r.count(), in_blocks);
}

double reduce_columns_nanos(int64_t rows, int64_t n, int64_t inner) {
  constexpr int64_t kTogether = 16;
  return multiplied(rows / std::max<int64_t>(inner, 1), n, std::max(kTogether, inner)) * 0.1;
}
double columns_nanos(const Reduction& r) { return reduce_columns_nanos(r.outer() * r.inner(), r.reduced(), r.inner()); }

Cost columns_cost(const NodeContext& c) {
  const Reduction r = reduction_of(c);
  if (r.is_alias()) return kNothingToDo;
  if (r.op == ReduceOp::kLogSumExp) return Cost::cannot("it has no columns of exponentials");
  if (r.count() == 0) return Cost::cannot("nothing is reduced");
  if (!r.is_columns()) return Cost::cannot("what is reduced does not lie in columns");
  return Cost(columns_nanos(r));
}

void lower_columns(LowerContext& c) {
  const Reduction r = reduction_of(c);
  const ColumnParams p{r.outer(), r.reduced(), r.inner(), kernels::reduce_columns_fn(row_kernel(r.op)),
                       after_columns(r.op)};
  c.step(run_columns, p, {c.in(0), c.out(0)}, columns_nanos(r));
}

double generic_nanos(int64_t outputs, int64_t count) {
  return static_cast<double>(outputs) * (5 + static_cast<double>(count));
}

void lower_generic(LowerContext& c, ReduceOp op, const LoopNest<1>& kept, const LoopNest<1>& reduced, int64_t count) {
  const double nanos = generic_nanos(kept.elements(), count);
  dispatch<kAllTypes>(c.input(0).dtype, [&]<class T>() {
    const GenericParams<Wide<T>> p{op, count, kept, reduced, &ElementsOf<T>::kElements};
    c.step(run_generic<Wide<T>>, p, {c.in(0), c.out(0)}, nanos);
    return true;
  });
}

/// Float32 is gathered into rows: the bits are those of the other ways. Other types are reduced in order, floats in
/// double.
Cost generic_cost(const NodeContext& c) {
  const Reduction r = reduction_of(c);
  if (r.is_alias()) return kNothingToDo;
  return Cost(generic_nanos(r.kept.elements(), r.count()));
}
void lower_any(LowerContext& c) {
  const Reduction r = reduction_of(c);
  if (c.input(0).dtype == DType::kF32) {
    const RowParams row{1, r.count(), kernels::reduce_fn(row_kernel(r.op)), r.op};
    const GatheredParams p{row, make_nest<1>(r.kept, {r.kept_strides}), make_nest<1>(r.gone, {r.gone_strides})};
    c.step(run_gathered, p, {c.in(0), c.out(0), c.scratch(static_cast<size_t>(r.count()) * sizeof(float))},
           generic_nanos(r.kept.elements(), r.count()));
    return;
  }
  lower_generic(c, r.op, make_nest<1>(r.kept, {r.kept_strides}), make_nest<1>(r.gone, {r.gone_strides}), r.count());
}

}  // namespace

double reduce_rows_nanos(int64_t rows, int64_t n) {
  return static_cast<double>(rows) * (5 + static_cast<double>(n) * 0.05);
}

void lower_reduce_rows(LowerContext& c, ReduceOp op, int64_t rows, int64_t n) {
  if (n == 1 && keeps_one_element(op)) return c.alias(0, 0);
  if (c.input(0).dtype == DType::kF32) {
    const RowParams p{rows, n, kernels::reduce_fn(row_kernel(op)), op};
    c.step(run_rows, p, {c.in(0), c.out(0)}, reduce_rows_nanos(rows, n));
    return;
  }
  lower_generic(c, op, make_nest<1>({rows}, {Strides{n}}), make_nest<1>({n}, {Strides{1}}), n);
}

double reduce_channels_nanos(int64_t rows, int64_t n, bool in_blocks) {
  return in_blocks ? reduce_columns_nanos(rows, n, kBlockChannels) : reduce_rows_nanos(rows, n);
}

void lower_reduce_channels(LowerContext& c, ReduceOp op, int64_t rows, int64_t n) {
  const Lying x = c.lying(0);
  if (x.layout == Layout::kPlain) return lower_reduce_rows(c, op, rows, n);
  const ColumnParams p{rows / kBlockChannels, n, kBlockChannels, kernels::reduce_columns_fn(row_kernel(op)),
                       after_columns(op)};
  c.step(run_columns, p, {x.ref, c.out(0)}, reduce_channels_nanos(rows, n, true));
}

void register_reduce(OpRegistry& r) {
  const std::vector<Lowering> ways = {
      {.name = "alias", .lower = lower_alias, .cost = alias_cost},
      {.name = "rows",
       .lower = lower_rows,
       .cost = rows_cost,
       .precision = Precision::kFloat32,
       .blocks_nanos = rows_blocks_nanos},
      {.name = "columns", .lower = lower_columns, .cost = columns_cost, .precision = Precision::kFloat32},
      {.name = "generic", .lower = lower_any, .cost = generic_cost},
  };
  for (std::string_view name : kNames) {
    r.add({.name = name, .min_inputs = 1, .max_inputs = 2, .max_outputs = 1, .infer = infer_reduce}, ways);
  }
}

}  // namespace inferkit
