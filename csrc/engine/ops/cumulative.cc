// CumSum and CumProd along a constant axis, in order; half types accumulate in float and round each element once.
#include <algorithm>
#include <cstring>

#include "engine/compile/op_registry.h"
#include "engine/ops/dispatch.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

constexpr TypeSet kSumTypes = kFloatTypes | types(DType::kI32, DType::kI64, DType::kU32, DType::kU64);
constexpr TypeSet kSumLoops = kFloatTypes | types(DType::kU32, DType::kU64);

struct Sum {
  static constexpr int kStart = 0;
  template <class T>
  static T apply(T a, T b) {
    if constexpr (std::is_integral_v<T>)
      return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
    else
      return a + b;
  }
};
struct Product {
  static constexpr int kStart = 1;
  template <class T>
  static T apply(T a, T b) {
    if constexpr (std::is_integral_v<T>)
      return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
    else
      return a * b;
  }
};

struct CumulativeParams {
  int64_t outer, n, inner;
  bool exclusive, reverse;
};

template <class Op, class T>
void run_cumulative(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const CumulativeParams*>(params);
  const int64_t step = p.reverse ? -p.inner : p.inner;
  WorkMeter meter;
  Compute<T> running{};
  for_line_blocks(meter, p.outer * p.inner, p.n, p.inner == 1 ? 2 : 10, [&](int64_t line, int64_t first, int64_t last) {
    const int64_t o = line / p.inner, i = line % p.inner;
    int64_t at = (o * p.n + (p.reverse ? p.n - 1 - first : first)) * p.inner + i;
    auto total = first == 0 ? static_cast<Compute<T>>(Op::kStart) : running;
    for (int64_t j = first; j < last; ++j, at += step) {
      const auto x = load(reinterpret_cast<const T*>(io[0])[at]);
      const auto next = j == 0 ? x : Op::apply(total, x);
      reinterpret_cast<T*>(io[1])[at] = store<T>(p.exclusive ? total : next);
      total = next;
    }
    running = total;
  });
}

constexpr int64_t kCumulativeColumns = 256;  // that go together, as their memory is adjacent
constexpr int64_t kColumnsAtOnce = 32;       // in a loop of vectors; fewer are better off as lines

/// What stands for one element of a line of which `total` holds what comes before.
template <class Op, class T>
T cumulated(T x, Compute<T>& total, bool first, bool exclusive) {
  const auto v = load(x);
  const auto next = first ? v : Op::apply(total, v);
  const T y = store<T>(exclusive ? total : next);
  total = next;
  return y;
}

/// One element of each of kCount lines. y may be x.
template <class Op, int64_t kCount, class T>
void cumulate(const T* x, T* y, Compute<T>* total, bool first, bool exclusive) {
  T line[kCount];
  std::memcpy(line, x, sizeof(line));
  for (int64_t i = 0; i < kCount; ++i) line[i] = cumulated<Op>(line[i], total[i], first, exclusive);
  std::memcpy(y, line, sizeof(line));
}

/// The same where lines lie beside each other.
template <class Op, class T>
void run_cumulative_columns(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const CumulativeParams*>(params);
  const int64_t step = p.reverse ? -p.inner : p.inner;
  WorkMeter meter;
  for (int64_t o = 0; o < p.outer; ++o) {
    for (int64_t i = 0; i < p.inner; i += kCumulativeColumns) {
      const int64_t width = std::min(kCumulativeColumns, p.inner - i);
      int64_t at = (o * p.n + (p.reverse ? p.n - 1 : 0)) * p.inner + i;
      Compute<T> total[kCumulativeColumns];
      std::fill_n(total, width, static_cast<Compute<T>>(Op::kStart));
      const bool went_on = for_blocks(meter, 0, p.n, 5 + width / 2, [&](int64_t begin, int64_t end) {
        for (int64_t j = begin; j < end; ++j, at += step) {
          const T* x = reinterpret_cast<const T*>(io[0]) + at;
          T* y = reinterpret_cast<T*>(io[1]) + at;
          int64_t k = 0;
          const auto pieces = [&]<int64_t kCount>() {
            for (; k + kCount <= width; k += kCount) {
              cumulate<Op, kCount>(x + k, y + k, total + k, j == 0, p.exclusive);
            }
          };
          pieces.template operator()<kColumnsAtOnce>();
          pieces.template operator()<4>();
          for (; k < width; ++k) y[k] = cumulated<Op>(x[k], total[k], j == 0, p.exclusive);
        }
      });
      if (!went_on) return;
    }
  }
}

int64_t axis_of(const NodeContext& c) {
  const std::vector<int64_t> axis = c.const_ints(1);
  if (axis.size() != 1) c.fail("the axis must be a scalar");
  return c.resolve_axis(axis[0], static_cast<int64_t>(c.input(0).shape.rank()));
}

void infer_cumulative(InferContext& c) {
  axis_of(c);
  c.set_output(0, c.input(0).dtype, c.input(0).shape);
}

template <class Op>
void lower_cumulative(LowerContext& c) {
  const TensorFacts& x = c.input(0);
  if (!contains(kSumTypes, x.dtype)) c.unsupported(cat("an input of type ", dtype_name(x.dtype)));
  const auto axis = static_cast<size_t>(axis_of(c));
  const CumulativeParams p{x.shape.elements(0, axis), x.shape[axis], x.shape.elements(axis + 1, x.shape.rank()),
                           c.attr_int("exclusive", 0) != 0, c.attr_int("reverse", 0) != 0};
  const bool columns = p.inner >= kColumnsAtOnce;
  const StepFn fn = dispatch<kSumLoops>(signless(x.dtype), [&]<class T>() -> StepFn {
    return columns ? run_cumulative_columns<Op, T> : run_cumulative<Op, T>;
  });
  c.in_place(0, 0);
  const double each = columns ? 0.1 * static_cast<double>(dtype_size(x.dtype)) : p.inner == 1 ? 0.5 : 0.8;
  c.step(fn, p, {c.in(0), c.out(0)}, static_cast<double>(x.shape.elements()) * each);
}

Axes mixed_by_cumulative(const NodeContext& c, size_t i) { return i == 0 ? one_axis(axis_of(c)) : Axes{0}; }

void add(OpRegistry& r, std::string_view name, int since, LowerFn lower) {
  r.add({.name = name,
         .since = since,
         .min_inputs = 2,
         .max_inputs = 2,
         .max_outputs = 1,
         .infer = infer_cumulative,
         .mixed_axes = mixed_by_cumulative},
        lower);
}

}  // namespace

void register_cumulative(OpRegistry& r) {
  add(r, "CumSum", 11, lower_cumulative<Sum>);
  add(r, "CumProd", 26, lower_cumulative<Product>);
}

}  // namespace inferkit
