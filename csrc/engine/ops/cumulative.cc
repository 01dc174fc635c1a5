// CumSum and CumProd along a constant axis, in order; half types accumulate in float and round each element once.
#include "engine/compile/op_registry.h"
#include "engine/ops/dispatch.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

constexpr TypeSet kSumTypes = kFloatTypes | types(DType::kI32, DType::kI64, DType::kU32, DType::kU64);

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
  const StepFn fn = dispatch<kSumTypes>(x.dtype, []<class T>() -> StepFn { return run_cumulative<Op, T>; });
  if (!fn) c.unsupported(cat("an input of type ", dtype_name(x.dtype)));
  const auto axis = static_cast<size_t>(axis_of(c));
  const CumulativeParams p{x.shape.elements(0, axis), x.shape[axis], x.shape.elements(axis + 1, x.shape.rank()),
                           c.attr_int("exclusive", 0) != 0, c.attr_int("reverse", 0) != 0};
  c.in_place(0, 0);
  c.step(fn, p, {c.in(0), c.out(0)}, static_cast<double>(x.shape.elements()));
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
