// ReduceSum, ReduceMean, ReduceMax, ReduceMin, ReduceProd, ReduceL1, ReduceL2, ReduceLogSum, ReduceLogSumExp,
// ReduceSumSquare. The order of every sum follows from the reduced dimensions alone.
#include "engine/ops/reduce.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "engine/compile/op_registry.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/strided.h"
#include "engine/ops/wrap.h"
#include "kernels/cpu/binary/binary.h"
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
constexpr int64_t kParallelElements = 1 << 18;  // below this a second thread costs more than it brings

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

struct GenericParams {
  ReduceOp op;
  int64_t count;  // elements that one output is reduced from
  LoopNest<1> kept, reduced;
};

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

/// Folds f over the elements at `x`: acc = f(acc, element as W), in order.
template <class W, class T, class F>
W fold(const LoopNest<1>& nest, const T* x, W acc, F&& f) {
  const int64_t n = nest.inner(), stride = nest.inner_stride(0);
  for_each_run(nest, [&](const std::array<int64_t, 1>& offset, int64_t) {
    const T* p = x + offset[0];
    for (int64_t i = 0; i < n; ++i) acc = f(acc, static_cast<W>(load(p[i * stride])));
  });
  return acc;
}

template <class T>
T reduce_one(const GenericParams& p, const T* x) {
  using W = Wide<T>;
  using Limits = std::numeric_limits<std::conditional_t<std::is_floating_point_v<W>, W, Compute<T>>>;
  constexpr W kLowest = Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
  constexpr W kHighest = Limits::has_infinity ? Limits::infinity() : Limits::max();
  const LoopNest<1>& nest = p.reduced;
  const auto square = [](auto v) { return wrap_mul(v, v); };
  switch (p.op) {
    case ReduceOp::kSum:
      return narrow<T>(fold<W>(nest, x, 0, [](W a, W v) { return wrap_add(a, v); }));
    case ReduceOp::kMean:
      if constexpr (std::is_floating_point_v<W>) {
        return narrow<T>(fold<W>(nest, x, 0, [](W a, W v) { return a + v; }) / static_cast<W>(p.count));
      } else {  // the sum of what an int64 counts fits, so that the mean is exact before it is truncated
        using Sum = std::conditional_t<sizeof(T) < sizeof(W), W, __int128>;
        if (p.count == 0) return T{0};
        const Sum sum = fold<Sum>(nest, x, 0, [](Sum a, Sum v) { return a + v; });
        return narrow<T>(static_cast<W>(sum / p.count));
      }
    case ReduceOp::kMax:
      return narrow<T>(fold<W>(nest, x, kLowest, [](W a, W v) { return v > a || v != v ? v : a; }));
    case ReduceOp::kMin:
      return narrow<T>(fold<W>(nest, x, kHighest, [](W a, W v) { return v < a || v != v ? v : a; }));
    case ReduceOp::kProd:
      return narrow<T>(fold<W>(nest, x, 1, [](W a, W v) { return wrap_mul(a, v); }));
    case ReduceOp::kL1:
      return narrow<T>(fold<W>(nest, x, 0, [](W a, W v) { return wrap_add(a, v < 0 ? wrap_mul(v, W(-1)) : v); }));
    case ReduceOp::kL2:
      return narrow<T>(std::sqrt(fold<double>(nest, x, 0, [&](double a, double v) { return a + square(v); })));
    case ReduceOp::kSumSquare:
      return narrow<T>(fold<W>(nest, x, 0, [&](W a, W v) { return wrap_add(a, square(v)); }));
    case ReduceOp::kLogSum:
      return narrow<T>(std::log(fold<double>(nest, x, 0, [](double a, double v) { return a + v; })));
    case ReduceOp::kLogSumExp: {
      constexpr double kInf = std::numeric_limits<double>::infinity();
      const double top = fold<double>(nest, x, -kInf, [](double a, double v) { return v > a || v != v ? v : a; });
      if (!(std::abs(top) < kInf)) return narrow<T>(top);
      return narrow<T>(top +
                       std::log(fold<double>(nest, x, 0, [&](double a, double v) { return a + std::exp(v - top); })));
    }
  }
  return T{};
}

template <class T>
void run_generic(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const GenericParams*>(params);
  const T* x = reinterpret_cast<const T*>(io[0]);
  T* y = reinterpret_cast<T*>(io[1]);
  const int64_t stride = p.kept.inner_stride(0);
  WorkMeter meter;
  for_each_run(p.kept, [&](const std::array<int64_t, 1>& offset, int64_t run) {
    T* out = y + run * p.kept.inner();
    for (int64_t i = 0; i < p.kept.inner() && meter.go_on(p.count); ++i) {
      out[i] = reduce_one<T>(p, x + offset[0] + i * stride);
    }
  });
}

// ---- Float32, contiguous rows ---------------------------------------------------------------------------------------

struct RowParams {
  int64_t rows, n;
  kernels::ReduceFn fn;
  ReduceOp op;
};

/// log(sum(exp x)), with the exponentials of 256 elements at a time.
float log_sum_exp(const float* x, int64_t n) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const float top = kernels::reduce_fn(kernels::Reduce::kMax)(x, n);
  if (!(std::abs(top) < kInf)) return top;
  const auto sum = kernels::reduce_fn(kernels::Reduce::kSum);
  const auto exp = kernels::unary_fn(kernels::Unary::kExp);
  double total = 0;
  alignas(64) float chunk[256];
  for (int64_t first = 0; first < n; first += 256) {
    const int64_t count = std::min<int64_t>(256, n - first);
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
    case ReduceOp::kLogSum:
      return static_cast<float>(std::log(static_cast<double>(p.fn(x, p.n))));
    case ReduceOp::kLogSumExp:
      return log_sum_exp(x, p.n);
    default:
      return p.fn(x, p.n);
  }
}

void run_rows(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const RowParams*>(params);
  const float* x = reinterpret_cast<const float*>(io[0]);
  float* y = reinterpret_cast<float*>(io[1]);
  const auto rows = [&](int64_t first, int64_t last) {
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

// ---- Float32, [outer, n, inner] over n ------------------------------------------------------------------------------

struct ColumnParams {
  int64_t outer, n, inner;
  kernels::BinaryFn combine, square;  // square: for kSumSquare and kL2
  kernels::UnaryFn before, after;     // null where there is none
  kernels::BinaryFn divide;           // kMean
};

constexpr int64_t kColumnBlock = 1024;

/// y = rows [first, end) of x, combined; `held` has room for a row.
void combine_rows(const ColumnParams& p, const float* x, int64_t first, int64_t end, float* y, float* held,
                  int64_t width) {
  x += first * p.inner;
  for (int64_t r = first; r < end; ++r, x += p.inner) {
    const float* row = x;
    float* to = r == first ? y : held;
    if (p.square) {
      p.square(x, x, to, width);
      row = to;
    } else if (p.before) {
      p.before(x, to, width, 0, 0);
      row = to;
    }
    if (r > first)
      p.combine(y, row, y, width);
    else if (row != y)
      std::copy(row, row + width, y);
  }
}

/// In chunks of rows (kernels/summation.h).
void reduce_columns(const ColumnParams& p, const float* x, float* y, int64_t width) {
  alignas(64) float held[kColumnBlock], part[kColumnBlock];
  const int64_t chunk = kernels::sum_chunk(p.n);
  combine_rows(p, x, 0, std::min(p.n, chunk), y, held, width);
  for (int64_t first = chunk; first < p.n; first += chunk) {
    combine_rows(p, x, first, std::min(p.n, first + chunk), part, held, width);
    p.combine(y, part, y, width);
  }
  if (p.divide) {
    const auto count = static_cast<float>(p.n);
    p.divide(y, &count, y, width);
  }
  if (p.after) p.after(y, y, width, 0, 0);
}

void run_columns(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const ColumnParams*>(params);
  const float* x = reinterpret_cast<const float*>(io[0]);
  float* y = reinterpret_cast<float*>(io[1]);
  const int64_t blocks = (p.inner + kColumnBlock - 1) / kColumnBlock;
  const auto block = [&](int64_t i) {
    const int64_t o = i / blocks, first = i % blocks * kColumnBlock;
    reduce_columns(p, x + o * p.n * p.inner + first, y + o * p.inner + first, std::min(kColumnBlock, p.inner - first));
  };
  if (context.pool && context.max_threads > 1 && p.outer * p.n * p.inner >= kParallelElements)
    context.pool->parallel_for(p.outer * blocks, context.max_threads, block);
  else
    for_parts(p.outer * blocks, block);
}

// ---- The ways
// ---------------------------------------------------------------------------------------------------------

/// Dimensions of 1 change nothing, and neighbours of one kind are one dimension: what is left is a short word such as
/// KR (rows) or KRK (columns). A leading K may be missing, so a batch of one takes the path of a larger one.
struct Reduction {
  ReduceOp op;
  Shape kept, gone;
  Strides kept_strides{}, gone_strides{};
  std::string word;
  int64_t dims[Shape::kMaxRank] = {};  // of the word's letters

  int64_t count() const { return gone.elements(); }
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
  const ReduceOp op = op_of(c);
  const bool plain = op == ReduceOp::kSum || op == ReduceOp::kMean || op == ReduceOp::kMax || op == ReduceOp::kMin ||
                     op == ReduceOp::kProd || op == ReduceOp::kLogSumExp;
  if (!plain) return Cost::cannot("of one element it is not that element");
  return reduction_of(c).count() == 1 ? Cost(0) : Cost::cannot("more than one element, or none, is reduced");
}
void lower_alias(LowerContext& c) { c.alias(0, 0); }

double rows_nanos(int64_t rows, int64_t n) { return static_cast<double>(rows) * (5 + static_cast<double>(n) * 0.05); }

Cost rows_cost(const NodeContext& c) {
  const Reduction r = reduction_of(c);
  if (r.count() == 0) return Cost::cannot("nothing is reduced");
  if (!r.is_rows()) return Cost::cannot("what is reduced does not lie in rows");
  return Cost(rows_nanos(r.kept.elements(), r.count()));
}
void lower_rows(LowerContext& c) {
  const Reduction r = reduction_of(c);
  lower_reduce_rows(c, r.op, r.kept.elements(), r.count());
}

double columns_nanos(const Reduction& r) { return static_cast<double>(r.outer() * r.reduced() * r.inner()) * 0.1; }

Cost columns_cost(const NodeContext& c) {
  constexpr int64_t kLeastColumns = 8;
  const Reduction r = reduction_of(c);
  if (r.op == ReduceOp::kLogSumExp) return Cost::cannot("it has no columns of exponentials");
  if (r.count() == 0) return Cost::cannot("nothing is reduced");
  if (!r.is_columns()) return Cost::cannot("what is reduced does not lie in columns");
  if (r.inner() < kLeastColumns) return Cost::cannot("there are less than 8 columns");
  return Cost(columns_nanos(r));
}

void lower_columns(LowerContext& c) {
  using kernels::Binary;
  using kernels::BinaryForm;
  const Reduction r = reduction_of(c);
  const ReduceOp op = r.op;
  ColumnParams p{r.outer(), r.reduced(), r.inner(), nullptr, nullptr, nullptr, nullptr, nullptr};
  const Binary combine = op == ReduceOp::kMax    ? Binary::kMax
                         : op == ReduceOp::kMin  ? Binary::kMin
                         : op == ReduceOp::kProd ? Binary::kMul
                                                 : Binary::kAdd;
  p.combine = kernels::binary_fn(combine, BinaryForm::kVectorVector);
  if (op == ReduceOp::kSumSquare || op == ReduceOp::kL2)
    p.square = kernels::binary_fn(Binary::kMul, BinaryForm::kVectorVector);
  if (op == ReduceOp::kL1) p.before = kernels::unary_fn(kernels::Unary::kAbs);
  if (op == ReduceOp::kL2) p.after = kernels::unary_fn(kernels::Unary::kSqrt);
  if (op == ReduceOp::kLogSum) p.after = kernels::unary_fn(kernels::Unary::kLog);
  if (op == ReduceOp::kMean) p.divide = kernels::binary_fn(Binary::kDiv, BinaryForm::kVectorScalar);
  c.step(run_columns, p, {c.in(0), c.out(0)}, columns_nanos(r));
}

double generic_nanos(int64_t outputs, int64_t count) {
  return static_cast<double>(outputs) * (5 + static_cast<double>(count));
}

void lower_generic(LowerContext& c, ReduceOp op, const LoopNest<1>& kept, const LoopNest<1>& reduced, int64_t count) {
  const GenericParams p{op, count, kept, reduced};
  const auto fn = dispatch<kAllTypes>(c.input(0).dtype, []<class T>() -> StepFn { return run_generic<T>; });
  c.step(fn, p, {c.in(0), c.out(0)}, generic_nanos(kept.elements(), count));
}

/// Sums in double, in order: unlike the other two it follows no rule of chunks, which float32 takes it for alone where
/// neither of them can run the node.
Cost generic_cost(const NodeContext& c) {
  const Reduction r = reduction_of(c);
  return Cost(generic_nanos(r.kept.elements(), r.count()));
}
void lower_any(LowerContext& c) {
  const Reduction r = reduction_of(c);
  lower_generic(c, r.op, make_nest<1>(r.kept, {r.kept_strides}), make_nest<1>(r.gone, {r.gone_strides}), r.count());
}

}  // namespace

void lower_reduce_rows(LowerContext& c, ReduceOp op, int64_t rows, int64_t n) {
  if (c.input(0).dtype == DType::kF32) {
    const RowParams p{rows, n, kernels::reduce_fn(row_kernel(op)), op};
    c.step(run_rows, p, {c.in(0), c.out(0)}, rows_nanos(rows, n));
    return;
  }
  lower_generic(c, op, make_nest<1>({rows}, {Strides{n}}), make_nest<1>({n}, {Strides{1}}), n);
}

void register_reduce(OpRegistry& r) {
  const std::vector<Lowering> ways = {
      {.name = "alias", .lower = lower_alias, .cost = alias_cost},
      {.name = "rows", .lower = lower_rows, .cost = rows_cost, .precision = Precision::kFloat32},
      {.name = "columns", .lower = lower_columns, .cost = columns_cost, .precision = Precision::kFloat32},
      {.name = "generic", .lower = lower_any, .cost = generic_cost},
  };
  for (std::string_view name : kNames) {
    r.add({.name = name, .min_inputs = 1, .max_inputs = 2, .max_outputs = 1, .infer = infer_reduce}, ways);
  }
}

}  // namespace inferkit
