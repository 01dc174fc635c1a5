// Two operands, broadcast, one result: shape rule, step and lowering that arithmetic, comparisons and logic share.
#pragma once
#include <algorithm>

#include "base/error.h"
#include "engine/compile/lower.h"
#include "engine/compile/strided.h"
#include "engine/ops/dispatch.h"

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

/// Rows of n elements: where the first begins, and the bytes to the next. An operand that does not move along a row is
/// one element.
struct BinaryRows {
  const std::byte *a, *b;
  std::byte* y;
  std::array<int64_t, 3> steps;
  int64_t rows, n;
  bool a_moves, b_moves;
};
using BinaryLoop = void (*)(const BinaryRows&);

/// f(a, b, y) for each row, with typed pointers.
template <class A, class B, class Y, class F>
void for_each_row(const BinaryRows& r, F&& f) {
  const std::byte *a = r.a, *b = r.b;
  std::byte* y = r.y;
  for (int64_t i = 0; i < r.rows; ++i, a += r.steps[0], b += r.steps[1], y += r.steps[2]) {
    f(reinterpret_cast<const A*>(a), reinterpret_cast<const B*>(b), reinterpret_cast<Y*>(y));
  }
}

/// Operands a, b, y of a step.
struct BinaryParams {
  LoopNest<3> nest;
  BinaryLoop loop;
  std::array<int64_t, 3> sizes;  // of an element
  int64_t nanos = 1;             // that an element takes at most
};

inline LoopNest<3> binary_nest(const Shape& a, const Shape& b, const Shape& y) {
  return make_nest<3>(y, {broadcast_strides(a, y), broadcast_strides(b, y), y.strides()});
}

/// What Op::apply takes at most: about a nanosecond, or what Op::nanos<T>() says.
template <class Op, class T>
constexpr int64_t apply_nanos() {
  if constexpr (requires { Op::template nanos<T>(); })
    return Op::template nanos<T>();
  else
    return 1;
}

/// What Op::apply gives for elements of type T: T, or bool where apply says so.
template <class Op, class T>
using BinaryResult = std::conditional_t<std::is_same_v<decltype(Op::apply(Compute<T>{}, Compute<T>{})), bool>, bool, T>;

/// y = Op::apply(a, b) in Compute<T>.
template <class Op, class T>
void binary_loop(const BinaryRows& rows) {
  using R = BinaryResult<Op, T>;
  const auto one = [](Compute<T> x, Compute<T> y) {
    if constexpr (std::is_same_v<R, bool>) {
      return Op::apply(x, y);
    } else {
      return store<T>(static_cast<Compute<T>>(Op::apply(x, y)));
    }
  };
  const int64_t n = rows.n;
  const bool a_moves = rows.a_moves, b_moves = rows.b_moves;
  for_each_row<T, T, R>(rows, [&](const T* a, const T* b, R* y) {
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

/// The walk is the same for all operators and types, which have loops over rows each.
inline void run_binary(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const BinaryParams*>(params);
  BinaryRows rows{};
  for (size_t k = 0; k < 3; ++k) rows.steps[k] = p.nest.row_stride(k) * p.sizes[k];
  rows.a_moves = p.nest.inner_stride(0) != 0;
  rows.b_moves = p.nest.inner_stride(1) != 0;
  for_each_block(
      p.nest,
      [&](const auto& at, int64_t count, int64_t n) {
        rows.a = io[0] + at[0] * p.sizes[0];
        rows.b = io[1] + at[1] * p.sizes[1];
        rows.y = io[2] + at[2] * p.sizes[2];
        rows.rows = count;
        rows.n = n;
        p.loop(rows);
      },
      p.nanos);
}

/// The params of a step of run_binary for T of Set; `loop` is null for other types. Where Op does the same to signed
/// and unsigned integers (Op::kSignless), one loop serves both.
template <class Op, TypeSet Set>
BinaryParams binary_params(DType dtype, const LoopNest<3>& nest) {
  BinaryParams params{nest, nullptr, {}, 1};
  const auto choose = [&]<class T>() {
    params.loop = binary_loop<Op, T>;
    params.sizes = {sizeof(T), sizeof(T), sizeof(BinaryResult<Op, T>)};
    params.nanos = apply_nanos<Op, Compute<T>>();
    return true;
  };
  if constexpr (requires { requires Op::kSignless; }) {
    if (contains(Set, dtype)) dispatch<Set & ~kSignedTypes>(signless(dtype), choose);
  } else {
    dispatch<Set>(dtype, choose);
  }
  return params;
}

/// Lets output 0 take the place of an input that has its shape and element size.
inline void offer_in_place(LowerContext& c, size_t inputs) {
  for (size_t i = 0; i < inputs; ++i) {
    if (!c.has_input(i) || !(c.input(i).shape == c.output(0).shape)) continue;
    if (dtype_size(c.input(i).dtype) == dtype_size(c.output(0).dtype)) c.in_place(0, i);
  }
}

/// Which operand of Op is which input.
enum class Order : uint8_t { kAsGiven, kSwapped };

/// A step of Op on elements of T, T of Set; refuses other types.
template <class Op, TypeSet Set, Order kOrder = Order::kAsGiven>
void lower_binary(LowerContext& c) {
  constexpr size_t kA = kOrder == Order::kSwapped, kB = 1 - kA;
  const DType dtype = c.input(0).dtype;
  const Shape& y = c.output(0).shape;
  const BinaryParams params = binary_params<Op, Set>(dtype, binary_nest(c.input(kA).shape, c.input(kB).shape, y));
  if (!params.loop) c.unsupported(cat("inputs of type ", dtype_name(dtype)));
  offer_in_place(c, 2);
  c.step(run_binary, params, {c.in(kA), c.in(kB), c.out(0)},
         static_cast<double>(y.elements()) * std::max(1.0, static_cast<double>(params.nanos) / 20));
}

}  // namespace inferkit
