// Two operands, broadcast, one result: shape rule, step and lowering that arithmetic, comparisons and logic share.
#pragma once
#include <algorithm>

#include "base/error.h"
#include "base/independent.h"
#include "engine/compile/lower.h"
#include "engine/compile/strided.h"
#include "engine/ops/common/cast_elements.h"
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
  // What makes of a and b what the loop takes, and of its result y; null where it takes and gives their own types.
  std::array<CastFn, 3> casts{};
  std::array<int64_t, 3> loop_sizes{};  // of an element that is converted, in the loop
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
using BinaryResult = decltype(Op::apply(T{}, T{}));

/// Whether no vectors are to be gained for elements of type T (Op::kScalar<T>).
template <class Op, class T>
constexpr bool is_scalar() {
  if constexpr (requires { Op::template kScalar<T>; })
    return Op::template kScalar<T>;
  else
    return false;
}

/// y = Op::apply(a, b). Without vectors, one loop is enough for operands that move along a row and those that do not.
template <class Op, class T>
void binary_loop(const BinaryRows& rows) {
  const int64_t n = rows.n;
  const bool a_moves = rows.a_moves, b_moves = rows.b_moves;
  for_each_row<T, T, BinaryResult<Op, T>>(rows, [&](const T* a, const T* b, BinaryResult<Op, T>* y) {
    if constexpr (is_scalar<Op, T>()) {
      const int64_t sa = a_moves, sb = b_moves;
      for (int64_t i = 0; i < n; ++i) y[i] = Op::apply(a[i * sa], b[i * sb]);
    } else if (!b_moves) {
      const T right = *b;
      INFERKIT_INDEPENDENT for (int64_t i = 0; i < n; ++i) y[i] = Op::apply(a[i], right);
    } else if (!a_moves) {
      const T left = *a;
      INFERKIT_INDEPENDENT for (int64_t i = 0; i < n; ++i) y[i] = Op::apply(left, b[i]);
    } else {
      INFERKIT_INDEPENDENT for (int64_t i = 0; i < n; ++i) y[i] = Op::apply(a[i], b[i]);
    }
  });
}

/// Elements on their way through a buffer: `rows` rows of `n`, `step` bytes apart on the outside and dense within.
/// A step of 0: they are one row, which all have.
struct ConvertedRows {
  CastFn cast;
  int64_t rows, n, step, size;  // size: of an element on the outside
  int64_t room;                 // of an element in the buffer

  void in(const std::byte* from, std::byte* to) const {
    if (step == 0) return cast(from, to, n);
    if (step == n * size) return cast(from, to, rows * n);
    for (int64_t i = 0; i < rows; ++i) cast(from + i * step, to + i * n * room, n);
  }
  void out(const std::byte* from, std::byte* to) const {
    if (step == n * size) return cast(from, to, rows * n);
    for (int64_t i = 0; i < rows; ++i) cast(from + i * n * room, to + i * step, n);
  }
  int64_t step_within() const { return step == 0 ? 0 : n * room; }
};

/// Rows of elements that are converted, by way of buffers: as many short ones at a time as fit, or a piece of one.
inline void run_converted(const BinaryParams& p, const BinaryRows& r) {
  constexpr int64_t kPiece = 256;
  alignas(64) std::byte a[kPiece * 8], b[kPiece * 8], y[kPiece * 8];
  const int64_t together = std::max<int64_t>(1, kPiece / std::max<int64_t>(1, r.n));
  for (int64_t row = 0; row < r.rows; row += together) {
    const int64_t rows = std::min(together, r.rows - row);
    for (int64_t first = 0; first < r.n; first += kPiece) {
      const int64_t n = std::min(kPiece, r.n - first);
      const std::byte* left = r.a + row * r.steps[0] + (r.a_moves ? first * p.sizes[0] : 0);
      const std::byte* right = r.b + row * r.steps[1] + (r.b_moves ? first * p.sizes[1] : 0);
      std::byte* result = r.y + row * r.steps[2] + first * p.sizes[2];
      const auto rows_of = [&](size_t k, bool moves) {
        return ConvertedRows{p.casts[k], rows, moves ? n : 1, r.steps[k], p.sizes[k], p.loop_sizes[k]};
      };
      const ConvertedRows of_a = rows_of(0, r.a_moves), of_b = rows_of(1, r.b_moves), of_y = rows_of(2, true);
      if (of_a.cast) of_a.in(left, a);
      if (of_b.cast) of_b.in(right, b);
      const auto step = [&](const ConvertedRows& of) { return of.cast ? of.step_within() : of.step; };
      p.loop({of_a.cast ? a : left,
              of_b.cast ? b : right,
              of_y.cast ? y : result,
              {step(of_a), step(of_b), of_y.cast ? n * of_y.room : of_y.step},
              rows,
              n,
              r.a_moves,
              r.b_moves});
      if (of_y.cast) of_y.out(y, result);
    }
  }
}

/// The walk is the same for all operators and types, which have loops over rows each.
inline void run_binary(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const BinaryParams*>(params);
  const bool converts = p.casts != std::array<CastFn, 3>{};
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
        converts ? run_converted(p, rows) : p.loop(rows);
      },
      p.nanos);
}

/// What a type that elements are computed in must have of their own: all values; the low bits, where results do not
/// depend on the sign; or everything, its width too.
enum class Widening : uint8_t { kValues, kLowBits, kNone };
/// What elements of type `t` are computed in: of types that models seldom compute in, another one, so that not every
/// operator is compiled for each of them.
constexpr DType loop_type(DType t, Widening widening) {
  if (widening == Widening::kNone) return t;
  const bool values = widening == Widening::kValues;
  switch (t) {
    case DType::kF16:
    case DType::kBF16:
      return DType::kF32;
    case DType::kI8:
      return values ? DType::kI8 : DType::kU8;
    case DType::kI16:
    case DType::kU16:
      return values ? DType::kI32 : DType::kU16;
    case DType::kI32:
      return values ? DType::kI32 : DType::kU32;
    case DType::kU32:
      return values ? DType::kI64 : DType::kU32;
    case DType::kI64:
      return values ? DType::kI64 : DType::kU64;
    default:
      return t;
  }
}
constexpr TypeSet loop_types(TypeSet set, Widening widening) {
  TypeSet out = 0;
  for (auto t = static_cast<unsigned>(DType::kF32); t <= static_cast<unsigned>(DType::kBool); ++t) {
    if (contains(set, static_cast<DType>(t))) out |= type_bit(loop_type(static_cast<DType>(t), widening));
  }
  return out;
}

/// The params of a step of run_binary for elements of a type of Set; `loop` is null for other types. Op says what it
/// needs to know of an operand, if not its value: Op::kWidening.
template <class Op, TypeSet Set>
BinaryParams binary_params(DType dtype, const LoopNest<3>& nest) {
  constexpr Widening kWidening = [] {
    if constexpr (requires { Op::kWidening; })
      return Op::kWidening;
    else
      return Widening::kValues;
  }();
  BinaryParams params{nest, nullptr, {}, 1};
  if (!contains(Set, dtype)) return params;
  const DType in = loop_type(dtype, kWidening);
  dispatch<loop_types(Set, kWidening)>(in, [&]<class T>() {
    using R = BinaryResult<Op, T>;
    params.loop = binary_loop<Op, T>;
    params.nanos = apply_nanos<Op, T>();
    const auto size = static_cast<int64_t>(dtype_size(dtype));
    constexpr bool kOfT = std::is_same_v<R, T>;  // bool otherwise
    params.sizes = {size, size, kOfT ? size : static_cast<int64_t>(sizeof(R))};
    if (size == sizeof(T)) return true;
    params.casts = {cast_elements(dtype, in), cast_elements(dtype, in), kOfT ? cast_elements(in, dtype) : nullptr};
    params.loop_sizes.fill(sizeof(T));
    return true;
  });
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

/// What binary_params is for one operator.
using BinaryParamsFn = BinaryParams (*)(DType, const LoopNest<3>&);

/// A step of an operator; refuses types that it has no loop for.
inline void lower_binary(LowerContext& c, BinaryParamsFn params_of, Order order = Order::kAsGiven) {
  const size_t a = order == Order::kSwapped, b = 1 - a;
  const DType dtype = c.input(0).dtype;
  const Shape& y = c.output(0).shape;
  const BinaryParams params = params_of(dtype, binary_nest(c.input(a).shape, c.input(b).shape, y));
  if (!params.loop) c.unsupported(cat("inputs of type ", dtype_name(dtype)));
  offer_in_place(c, 2);
  c.step(run_binary, params, {c.in(a), c.in(b), c.out(0)},
         static_cast<double>(y.elements()) * std::max(1.0, static_cast<double>(params.nanos) / 20));
}
template <class Op, TypeSet Set, Order kOrder = Order::kAsGiven>
void lower_binary(LowerContext& c) {
  lower_binary(c, binary_params<Op, Set>, kOrder);
}

}  // namespace inferkit
