// Where: one of two values by a condition; all three broadcast.
#include "engine/compile/op_registry.h"
#include "engine/ops/common/any_width.h"
#include "engine/ops/elementwise.h"

namespace inferkit {
namespace {

struct WhereParams {
  LoopNest<4> nest;  // condition, x, y, out
};

// Both values are read before one is chosen: masks are rarely predictable, and so the loops vectorise.
template <class W>
W pick(uint8_t condition, W x, W y) {
  const W mask = static_cast<W>(W{0} - static_cast<W>(condition != 0));
  return static_cast<W>((x & mask) | (y & static_cast<W>(~mask)));
}

template <class W>
void run_where(const void* params, std::byte* const* io, const ExecContext&) {
  const LoopNest<4>& nest = static_cast<const WhereParams*>(params)->nest;
  const int64_t sc = nest.inner_stride(0), sx = nest.inner_stride(1), sy = nest.inner_stride(2);
  for_each_piece(nest, [&](const auto& at, int64_t n) {
    const auto* condition = reinterpret_cast<const uint8_t*>(io[0]) + at[0];
    const W* x = reinterpret_cast<const W*>(io[1]) + at[1];
    const W* y = reinterpret_cast<const W*>(io[2]) + at[2];
    W* out = reinterpret_cast<W*>(io[3]) + at[3];
    if (sc == 1 && sx == 1 && sy == 1) {
      for (int64_t i = 0; i < n; ++i) out[i] = pick(condition[i], x[i], y[i]);
    } else if (sc == 1 && sx == 0 && sy == 1) {  // masks: a constant where the condition holds
      const W v = *x;
      for (int64_t i = 0; i < n; ++i) out[i] = pick(condition[i], v, y[i]);
    } else if (sc == 1 && sx == 1 && sy == 0) {
      const W v = *y;
      for (int64_t i = 0; i < n; ++i) out[i] = pick(condition[i], x[i], v);
    } else {
      for (int64_t i = 0; i < n; ++i) out[i] = pick(condition[i * sc], x[i * sx], y[i * sy]);
    }
  });
}

void infer_where(InferContext& c) {
  if (c.input(0).dtype != DType::kBool) c.wrong(cat("the condition is ", dtype_name(c.input(0).dtype), ", not bool"));
  require_same_type(c, 1, 2);
  c.set_output(0, c.input(1).dtype, broadcast_inputs(c));
}

void lower_where(LowerContext& c) {
  const Shape& out = c.output(0).shape;
  const StepFn fn = dispatch_any_width(c.output(0).dtype, []<class W>() -> StepFn { return run_where<W>; });
  offer_in_place(c, 3);
  const WhereParams params{
      make_nest<4>(out, {broadcast_strides(c.input(0).shape, out), broadcast_strides(c.input(1).shape, out),
                         broadcast_strides(c.input(2).shape, out), out.strides()})};
  c.step(fn, params, {c.in(0), c.in(1), c.in(2), c.out(0)}, static_cast<double>(out.elements()) * 0.5);
}

}  // namespace

void register_where(OpRegistry& r) {
  r.add({.name = "Where", .since = 9, .min_inputs = 3, .max_inputs = 3, .max_outputs = 1, .infer = infer_where},
        lower_where);
}

}  // namespace inferkit
