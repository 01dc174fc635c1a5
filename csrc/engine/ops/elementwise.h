// Two operands, broadcast, one result: shape rule, step and lowering that arithmetic, comparisons and logic share.
#pragma once
#include "base/error.h"
#include "engine/compile/lower.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/strided.h"

namespace inferkit {

/// The shape that all inputs of the node broadcast to.
inline Shape broadcast_inputs(const NodeContext& c) {
  Shape shape = c.input(0).shape;
  for (size_t i = 1; i < c.input_count(); ++i) {
    const auto both = broadcast(shape, c.input(i).shape);
    if (!both) c.fail(cat("shapes ", shape.str(), " and ", c.input(i).shape.str(), " do not broadcast"));
    shape = *both;
  }
  return shape;
}

/// Operands a, b, y of a step.
struct BinaryParams {
  LoopNest<3> nest;
};

inline LoopNest<3> binary_nest(const Shape& a, const Shape& b, const Shape& y) {
  return make_nest<3>(y, {broadcast_strides(a, y), broadcast_strides(b, y), y.strides()});
}

/// y = Op::apply(a, b) in Compute<T>; the result is T, or bool where apply says so.
template <class Op, class T>
void run_binary(const void* params, std::byte* const* io, const ExecContext&) {
  using Result = decltype(Op::apply(Compute<T>{}, Compute<T>{}));
  using R = std::conditional_t<std::is_same_v<Result, bool>, bool, T>;
  const LoopNest<3>& nest = static_cast<const BinaryParams*>(params)->nest;
  const bool a_moves = nest.inner_stride(0) != 0, b_moves = nest.inner_stride(1) != 0;
  const auto one = [](Compute<T> x, Compute<T> y) {
    if constexpr (std::is_same_v<R, bool>) {
      return Op::apply(x, y);
    } else {
      return store<T>(static_cast<Compute<T>>(Op::apply(x, y)));
    }
  };
  for_each_piece(nest, [&](const auto& at, int64_t n) {
    const T* a = reinterpret_cast<const T*>(io[0]) + at[0];
    const T* b = reinterpret_cast<const T*>(io[1]) + at[1];
    R* y = reinterpret_cast<R*>(io[2]) + at[2];
    if (!b_moves) {
      const auto right = load(*b);
      for (int64_t i = 0; i < n; ++i) y[i] = one(load(a[i]), right);
    } else if (!a_moves) {
      const auto left = load(*a);
      for (int64_t i = 0; i < n; ++i) y[i] = one(left, load(b[i]));
    } else {
      for (int64_t i = 0; i < n; ++i) y[i] = one(load(a[i]), load(b[i]));
    }
  });
}

/// Lets output 0 take the place of an input that has its shape and element size.
inline void offer_in_place(LowerContext& c, size_t inputs) {
  for (size_t i = 0; i < inputs; ++i) {
    if (!c.has_input(i) || !(c.input(i).shape == c.output(0).shape)) continue;
    if (dtype_size(c.input(i).dtype) == dtype_size(c.output(0).dtype)) c.in_place(0, i);
  }
}

/// A step of run_binary<Op, T>, T of Set; refuses other types.
template <class Op, TypeSet Set>
void lower_binary(LowerContext& c) {
  const StepFn fn = dispatch<Set>(c.input(0).dtype, []<class T>() -> StepFn { return run_binary<Op, T>; });
  if (!fn) c.unsupported(cat("inputs of type ", dtype_name(c.input(0).dtype)));
  const Shape& y = c.output(0).shape;
  offer_in_place(c, 2);
  c.step(fn, BinaryParams{binary_nest(c.input(0).shape, c.input(1).shape, y)}, {c.in(0), c.in(1), c.out(0)},
         static_cast<double>(y.elements()) * 1.0);
}

}  // namespace inferkit
