// Softmax, LogSoftmax and Hardmax. Before opset 13 the input is seen as a matrix of rows from `axis` on; since then one
// axis is normalised, whatever lies behind it.
#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/compile/op_registry.h"
#include "engine/ops/common/extreme.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/parallel.h"
#include "kernels/cpu/binary/binary.h"
#include "kernels/cpu/row/row.h"
#include "kernels/cpu/vmath/vmath.h"
#include "platform/run_control.h"
#include "platform/thread_pool.h"

namespace inferkit {
namespace {

enum class SoftmaxOp : uint8_t { kSoftmax, kLogSoftmax, kHardmax };

/// The input as [outer, n, inner]; n is normalised.
struct SoftmaxParams {
  int64_t outer = 1, n = 1, inner = 1;
};

constexpr TypeSet kHalfTypes = types(DType::kF16, DType::kBF16);
constexpr int64_t kParallelElements = 1 << 16;
constexpr int64_t kColumns = 512;  // at once
constexpr int64_t kShortRow = 8, kFewRows = 4;

void infer_softmax(InferContext& c) {
  const TensorFacts& x = c.input(0);
  require_type(c, 0, kFloatTypes);
  c.set_output(0, x.dtype, x.shape);
}

/// The axes that are normalised as one.
struct SoftmaxAxes {
  size_t first = 0, end = 0;
};
SoftmaxAxes softmax_axes(const NodeContext& c) {
  const auto rank = static_cast<int64_t>(c.input(0).shape.rank());
  if (rank == 0) return {};
  const bool only_one = c.version() >= 13;
  const int64_t fallback = only_one ? -1 : std::min<int64_t>(1, rank - 1);
  const auto axis = static_cast<size_t>(c.attr_axis(fallback, rank));
  if (only_one) return {axis, axis + 1};
  // A vector before opset 13 without an axis: its default, 1, names no axis; the whole vector is one row all the same.
  return {rank == 1 ? 0 : axis, static_cast<size_t>(rank)};
}

Axes mixed_by_softmax(const NodeContext& c, size_t) {
  const SoftmaxAxes axes = softmax_axes(c);
  return static_cast<Axes>((1u << axes.end) - (1u << axes.first));
}

SoftmaxParams softmax_params(const NodeContext& c) {
  const Shape& x = c.input(0).shape;
  const SoftmaxAxes axes = softmax_axes(c);
  return {x.elements(0, axes.first), x.elements(axes.first, axes.end), x.elements(axes.end, x.rank())};
}

/// Runs body(first, last) over `count` independent parts, on several threads where the work is worth it.
template <class F>
void for_parts(const ExecContext& context, int64_t count, int64_t elements_each, F&& body) {
  if (!context.pool || context.max_threads < 2 || count * elements_each < kParallelElements) {
    WorkMeter meter;
    for_blocks(meter, 0, count, std::max<int64_t>(1, elements_each), body);
    return;
  }
  const int64_t block = std::max<int64_t>(1, (kParallelElements / 4) / std::max<int64_t>(1, elements_each));
  context.pool->parallel_for((count + block - 1) / block, context.max_threads,
                             [&](int64_t i) { body(i * block, std::min(count, (i + 1) * block)); });
}

/// `width` neighbouring columns at once, with the bits of rows; every pass walks the rows in order.
template <bool kLog>
void softmax_columns(const SoftmaxParams& p, const float* x, float* y, int64_t width) {
  using namespace kernels;
  constexpr auto kVectors = BinaryForm::kVectorVector;
  const BinaryFn sub = binary_fn(Binary::kSub, kVectors), mul = binary_fn(Binary::kMul, kVectors);
  alignas(64) float top[kColumns], sum[kColumns];
  reduce_columns_fn(Reduce::kMax)(x, p.n, p.inner, width, top);
  row_kernels().exponentials(x, p.n, p.inner, width, top, kLog ? nullptr : y, sum);
  if (kLog) {
    unary_fn(Unary::kLog)(sum, sum, width, 0, 0);
  } else {
    for (int64_t i = 0; i < width; ++i) sum[i] = 1.0f / sum[i];
  }
  for (int64_t r = 0; r < p.n; ++r) {
    float* row = y + r * p.inner;
    if (kLog) {
      sub(x + r * p.inner, top, row, width);
      sub(row, sum, row, width);
    } else {
      mul(row, sum, row, width);
    }
  }
}

/// Rows of a few elements, which would leave most lanes idle: some of them at once as columns of a copy.
template <bool kLog>
void softmax_short_rows(const float* x, float* y, int64_t n, int64_t count) {
  alignas(64) float turned[kShortRow * kColumns];
  for (int64_t first = 0; first < count; first += kColumns) {
    const int64_t rows = std::min(kColumns, count - first);
    for (int64_t r = 0; r < rows; ++r, x += n) {
      for (int64_t j = 0; j < n; ++j) turned[j * kColumns + r] = x[j];
    }
    softmax_columns<kLog>({.outer = 1, .n = n, .inner = kColumns}, turned, turned, rows);
    for (int64_t r = 0; r < rows; ++r, y += n) {
      for (int64_t j = 0; j < n; ++j) y[j] = turned[j * kColumns + r];
    }
  }
}

template <bool kLog>
void run_rows(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const SoftmaxParams*>(params);
  const float* x = reinterpret_cast<const float*>(io[0]);
  float* y = reinterpret_cast<float*>(io[1]);
  for_parts(context, p.outer, p.n, [&](int64_t first, int64_t last) {
    if (p.n <= kShortRow && last - first > kFewRows) {
      return softmax_short_rows<kLog>(x + first * p.n, y + first * p.n, p.n, last - first);
    }
    const auto rows = kLog ? kernels::log_softmax_rows : kernels::softmax_rows;
    rows(x + first * p.n, y + first * p.n, p.n, last - first);
  });
}

template <bool kLog>
void run_columns(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const SoftmaxParams*>(params);
  const float* x = reinterpret_cast<const float*>(io[0]);
  float* y = reinterpret_cast<float*>(io[1]);
  const int64_t blocks = (p.inner + kColumns - 1) / kColumns;
  for_parts(context, p.outer * blocks, p.n * std::min(p.inner, kColumns), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t column = i % blocks * kColumns, at = i / blocks * p.n * p.inner + column;
      softmax_columns<kLog>(p, x + at, y + at, std::min(kColumns, p.inner - column));
    }
  });
}

// ---- In double ------------------------------------------------------------------------------------------------------

constexpr int64_t kTogether = 8;  // columns that lie in one cache line
constexpr int kMaxSlots = 16;

struct DoubleParams {
  SoftmaxParams shape;
  int slots;
};

template <bool kLog>
void softmax_double(const double* x, double* y, int64_t n) {
  if (!kLog) return kernels::row_kernels().softmax64(x, y, n);
  double top = 0;
  const double log_sum = std::log(kernels::row_kernels().exponentials64(x, nullptr, n, &top));
  for (int64_t j = 0; j < n; ++j) y[j] = (x[j] - top) - log_sum;
}

/// io: x, y, room for some columns.
template <bool kLog>
void run_doubles(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& all = *static_cast<const DoubleParams*>(params);
  const SoftmaxParams& p = all.shape;
  const double* x = reinterpret_cast<const double*>(io[0]);
  double* y = reinterpret_cast<double*>(io[1]);
  if (p.inner == 1) {
    return for_parts(context, p.outer, p.n, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) softmax_double<kLog>(x + i * p.n, y + i * p.n, p.n);
    });
  }
  const int64_t blocks = (p.inner + kTogether - 1) / kTogether;
  for_tasks(context, p.outer * blocks, all.slots, [&](int64_t task, int64_t slot) {
    double* const rows = reinterpret_cast<double*>(io[2]) + slot * kTogether * p.n;
    const int64_t first = task % blocks * kTogether, count = std::min(kTogether, p.inner - first);
    const int64_t at = task / blocks * p.n * p.inner + first;
    for (int64_t r = 0; r < p.n; ++r) {
      for (int64_t j = 0; j < count; ++j) rows[j * p.n + r] = x[at + r * p.inner + j];
    }
    for (int64_t j = 0; j < count; ++j) softmax_double<kLog>(rows + j * p.n, rows + j * p.n, p.n);
    for (int64_t r = 0; r < p.n; ++r) {
      for (int64_t j = 0; j < count; ++j) y[at + r * p.inner + j] = rows[j * p.n + r];
    }
  });
}

void lower_doubles(LowerContext& c, const SoftmaxParams& shape, bool log) {
  const int64_t elements = shape.outer * shape.n * shape.inner;
  const DoubleParams p{shape, elements < kParallelElements ? 1 : std::min(c.threads(), kMaxSlots)};
  const int64_t room = shape.inner == 1 ? 0 : p.slots * kTogether * shape.n;
  const Ref scratch = room == 0 ? Ref{} : c.scratch(static_cast<size_t>(room) * sizeof(double));
  c.step(log ? run_doubles<true> : run_doubles<false>, p, {c.in(0), c.out(0), scratch},
         static_cast<double>(elements) * 2);
}

// ---- Half types -----------------------------------------------------------------------------------------------------

template <class T, bool kLog>
void run_generic(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const SoftmaxParams*>(params);
  WorkMeter meter;
  for (int64_t i = 0; i < p.outer * p.inner && meter.go_on(20 * p.n); ++i) {
    const int64_t at = i / p.inner * p.n * p.inner + i % p.inner;
    const T* x = reinterpret_cast<const T*>(io[0]) + at;
    T* y = reinterpret_cast<T*>(io[1]) + at;
    double top = -std::numeric_limits<double>::infinity(), sum = 0;
    for (int64_t j = 0; j < p.n; ++j) top = std::max(top, static_cast<double>(load(x[j * p.inner])));
    for (int64_t j = 0; j < p.n; ++j) sum += std::exp(static_cast<double>(load(x[j * p.inner])) - top);
    const double log_sum = std::log(sum);
    for (int64_t j = 0; j < p.n; ++j) {
      const double v = static_cast<double>(load(x[j * p.inner])) - top;
      y[j * p.inner] = store<T>(static_cast<Compute<T>>(kLog ? v - log_sum : std::exp(v) / sum));
    }
  }
}

// One at the element that ArgMax finds.
template <class T>
void run_hardmax(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const SoftmaxParams*>(params);
  WorkMeter meter;
  for (int64_t i = 0; i < p.outer * p.inner && meter.go_on(2 * p.n); ++i) {
    const int64_t at = i / p.inner * p.n * p.inner + i % p.inner;
    const T* x = reinterpret_cast<const T*>(io[0]) + at;
    T* y = reinterpret_cast<T*>(io[1]) + at;
    int64_t best = 0;
    for (int64_t j = 1; j < p.n; ++j) {
      if (is_greater(load(x[j * p.inner]), load(x[best * p.inner]))) best = j;
    }
    for (int64_t j = 0; j < p.n; ++j) y[j * p.inner] = store<T>(j == best ? 1 : 0);
  }
}

void lower_softmax(LowerContext& c, SoftmaxOp op) {
  const SoftmaxParams p = softmax_params(c);
  const DType dtype = c.input(0).dtype;
  const int64_t elements = p.outer * p.n * p.inner;
  if (elements == 0) return;
  const bool log = op == SoftmaxOp::kLogSoftmax;
  StepFn fn = nullptr;
  double nanos = 20;
  if (op == SoftmaxOp::kHardmax) {
    fn = dispatch<kFloatTypes>(dtype, []<class T>() -> StepFn { return run_hardmax<T>; });
  } else if (dtype == DType::kF64) {
    c.in_place(0, 0);
    return lower_doubles(c, p, log);
  } else if (dtype != DType::kF32) {
    fn = dispatch<kHalfTypes>(
        dtype, [log]<class T>() -> StepFn { return log ? run_generic<T, true> : run_generic<T, false>; });
  } else {
    fn = p.inner == 1 ? (log ? run_rows<true> : run_rows<false>) : (log ? run_columns<true> : run_columns<false>);
    nanos = 0.5;
  }
  c.in_place(0, 0);
  c.step(fn, p, {c.in(0), c.out(0)}, static_cast<double>(elements) * nanos);
}

}  // namespace

void register_softmax(OpRegistry& r) {
  const auto add = [&](std::string_view name, LowerFn lower) {
    r.add({.name = name,
           .min_inputs = 1,
           .max_inputs = 1,
           .max_outputs = 1,
           .infer = infer_softmax,
           .mixed_axes = mixed_by_softmax},
          lower);
  };
  add("Softmax", [](LowerContext& c) { lower_softmax(c, SoftmaxOp::kSoftmax); });
  add("LogSoftmax", [](LowerContext& c) { lower_softmax(c, SoftmaxOp::kLogSoftmax); });
  add("Hardmax", [](LowerContext& c) { lower_softmax(c, SoftmaxOp::kHardmax); });
}

}  // namespace inferkit
