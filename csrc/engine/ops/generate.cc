// Tensors made from little: ConstantOfShape, Range, EyeLike, OneHot, Trilu.
#include <cmath>
#include <cstring>

#include "base/counted.h"
#include "engine/compile/expand.h"
#include "engine/ops/common/any_width.h"
#include "engine/ops/common/convert.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/saturate.h"
#include "graph/onnx_tensor.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

struct FillParams {
  int64_t n;
  uint64_t bits;  // of one element
};
template <class W>
void run_fill(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const FillParams*>(params);
  fill_in_blocks(reinterpret_cast<W*>(io[0]), p.n, static_cast<W>(p.bits));
}

void infer_constant_of_shape(InferContext& c) {
  const Tensor* value = c.attr_tensor("value");
  if (value && value->shape.elements() != 1) c.fail("attribute 'value' must hold one element");
  if (value && value->dtype == DType::kString) c.unsupported("strings");
  const std::vector<int64_t> dims = c.const_ints(0);
  if (dims.size() > Shape::kMaxRank) c.unsupported(cat("a shape of ", counted(dims.size(), "dimension")));
  for (int64_t d : dims) {
    if (d < 0) c.fail(cat("a dimension of ", d));
  }
  c.set_output(0, value ? value->dtype : DType::kF32, Shape(dims));
}
void lower_constant_of_shape(LowerContext& c) {
  const StepFn fn = dispatch_width(c.output(0).dtype, []<class W>() -> StepFn { return run_fill<W>; });
  if (!fn) c.unsupported("strings");
  FillParams p{c.output(0).shape.elements(), 0};
  if (const Tensor* value = c.attr_tensor("value")) std::memcpy(&p.bits, value->data, dtype_size(value->dtype));
  c.step(fn, p, {c.out(0)}, static_cast<double>(p.n) * 0.2);
}

constexpr TypeSet kRangeTypes = kFloatTypes | types(DType::kI16, DType::kI32, DType::kI64);

template <class T>
Compute<T> scalar_of(const NodeContext& c, size_t i) {
  const TensorFacts& facts = c.input(i);
  if (facts.shape.elements() != 1) c.fail(cat("input ", i, " must be a scalar"));
  return load(*c.known_value(i).as<T>());
}

void infer_range(InferContext& c) {
  require_type(c, 0, kRangeTypes);
  require_same_type(c, 0, 1);
  require_same_type(c, 0, 2);
  const DType dtype = c.input(0).dtype;
  if (c.attr_int("stash_type", 1) != 1 && (dtype == DType::kF16 || dtype == DType::kBF16)) c.unsupported("stash_type");
  const auto count = dispatch<kRangeTypes>(dtype, [&]<class T>() -> int64_t {
    const auto start = scalar_of<T>(c, 0), limit = scalar_of<T>(c, 1), delta = scalar_of<T>(c, 2);
    if (delta == 0) c.fail("a step of 0");
    if constexpr (std::is_integral_v<T>) {
      const __int128 span = static_cast<__int128>(limit) - start, step = delta;
      const __int128 n = (span + step + (step > 0 ? -1 : 1)) / step;
      return span == 0 || (span > 0) != (step > 0) ? 0 : static_cast<int64_t>(std::min<__int128>(n, INT64_MAX));
    } else {
      const double n =
          std::ceil((static_cast<double>(limit) - static_cast<double>(start)) / static_cast<double>(delta));
      if (!(n < 0x1p62)) c.fail("a range without an end");
      return n > 0 ? static_cast<int64_t>(n) : 0;
    }
  });
  c.set_output(0, dtype, {count});
}

struct RangeParams {
  int64_t n;
};
template <class T>
void run_range(const void* params, std::byte* const* io, const ExecContext&) {
  using C = Compute<T>;
  const int64_t n = static_cast<const RangeParams*>(params)->n;
  const C start = load(*reinterpret_cast<const T*>(io[0])), delta = load(*reinterpret_cast<const T*>(io[1]));
  T* y = reinterpret_cast<T*>(io[2]);
  in_blocks(n, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      if constexpr (std::is_integral_v<T>) {
        y[i] = static_cast<T>(static_cast<uint64_t>(start) + static_cast<uint64_t>(i) * static_cast<uint64_t>(delta));
      } else {
        y[i] = store<T>(start + static_cast<C>(i) * delta);
      }
    }
  });
}
void lower_range(LowerContext& c) {
  const StepFn fn = dispatch<kRangeTypes>(c.input(0).dtype, []<class T>() -> StepFn { return run_range<T>; });
  const int64_t n = c.output(0).shape.elements();
  c.step(fn, RangeParams{n}, {c.in(0), c.in(2), c.out(0)}, static_cast<double>(n));
}

void infer_eye_like(InferContext& c) {
  std::optional<DType> wish;
  if (c.has_attr("dtype")) {
    const auto code = static_cast<int32_t>(c.attr_int("dtype", 1));
    wish = onnx::dtype_of(code);
    if (!wish || *wish == DType::kString) c.unsupported("dtype " + onnx::dtype_text(code));
  }
  const TensorFacts& x = c.input(0);
  if (x.shape.rank() != 2) c.fail(cat("the input must be a matrix, not ", x.shape.str()));
  c.set_output(0, wish.value_or(x.dtype), x.shape);
}

struct EyeParams {
  int64_t rows, columns, k;
  uint64_t one;
};
template <class W>
void run_eye(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const EyeParams*>(params);
  W* y = reinterpret_cast<W*>(io[0]);
  fill_in_blocks(y, p.rows * p.columns, W{});
  for (int64_t r = std::max<int64_t>(0, -p.k); r < p.rows && r + p.k < p.columns; ++r) {
    y[r * p.columns + r + p.k] = static_cast<W>(p.one);
  }
}
void lower_eye_like(LowerContext& c) {
  const DType dtype = c.output(0).dtype;
  const std::optional<uint64_t> one = bits_of_one(dtype);
  if (!one) c.unsupported(cat("numbers of type ", dtype_name(dtype)));
  const StepFn fn = dispatch_width(dtype, []<class W>() -> StepFn { return run_eye<W>; });
  const Shape& y = c.output(0).shape;
  const int64_t k = std::clamp(c.attr_int("k", 0), -y[0], y[1]);  // further out there is nothing
  c.step(fn, EyeParams{y[0], y[1], k, *one}, {c.out(0)}, static_cast<double>(y.elements()) * 0.2);
}

size_t one_hot_axis(const NodeContext& c) {
  return static_cast<size_t>(c.attr_axis(-1, static_cast<int64_t>(c.input(0).shape.rank()) + 1));
}

void infer_one_hot(InferContext& c) {
  require_type(c, 0, kNumberTypes);
  require_type(c, 1, kNumberTypes);
  const int64_t depth = dispatch<kNumberTypes>(c.input(1).dtype, [&]<class T>() -> int64_t {
    const auto v = scalar_of<T>(c, 1);
    if constexpr (std::is_integral_v<T>)
      return static_cast<int64_t>(v);
    else
      return saturated<int64_t>(static_cast<double>(v));
  });
  if (depth < 0) c.fail(cat("a depth of ", depth));
  if (!(c.input(2).shape == Shape{2})) c.fail(cat("values must have shape (2,), not ", c.input(2).shape.str()));
  Shape out = c.input(0).shape;
  out.insert(one_hot_axis(c), depth);
  c.set_output(0, c.input(2).dtype, out);
}

using PutFn = void (*)(std::byte* y, int64_t at, const std::byte* value);
template <class W>
void put_element(std::byte* y, int64_t at, const std::byte* value) {
  reinterpret_cast<W*>(y)[at] = *reinterpret_cast<const W*>(value);
}
template <class W>
void fill_elements(std::byte* y, int64_t count, const std::byte* value) {
  fill_in_blocks(reinterpret_cast<W*>(y), count, *reinterpret_cast<const W*>(value));
}

struct OneHotParams {
  int64_t outer, depth, inner, width;
  PutFn put, fill;
};
template <class I>
void run_one_hot(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const OneHotParams*>(params);
  const I* indices = reinterpret_cast<const I*>(io[0]);
  const std::byte *off = io[1], *on = io[1] + p.width;
  p.fill(io[2], p.outer * p.depth * p.inner, off);
  WorkMeter meter;
  for_line_blocks(meter, p.outer, p.inner, 4, [&](int64_t o, int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const I v = indices[o * p.inner + i];
      // Compared before it is converted: out of range, or NaN, is nowhere.
      if (!(static_cast<double>(v) >= -static_cast<double>(p.depth) &&
            static_cast<double>(v) < static_cast<double>(p.depth))) {
        continue;
      }
      const auto index = static_cast<int64_t>(v);
      const int64_t place = index < 0 ? index + p.depth : index;
      p.put(io[2], (o * p.depth + place) * p.inner + i, on);
    }
  });
}
void lower_one_hot(LowerContext& c) {
  const Shape& x = c.input(0).shape;
  const Shape& y = c.output(0).shape;
  const size_t axis = one_hot_axis(c);
  const DType to = c.output(0).dtype;
  const OneHotParams p{x.elements(0, axis),
                       y[axis],
                       x.elements(axis, x.rank()),
                       static_cast<int64_t>(dtype_size(to)),
                       dispatch_any_width(to, []<class W>() -> PutFn { return put_element<W>; }),
                       dispatch_any_width(to, []<class W>() -> PutFn { return fill_elements<W>; })};
  // Doubles hold any index that there may be a place for.
  const DType from = c.input(0).dtype, index = from == DType::kI64 ? DType::kI64 : DType::kF64;
  const Ref indices = from == index ? c.steady(0) : converted(c, c.in(0), from, index, x.elements());
  c.step(index == DType::kI64 ? run_one_hot<int64_t> : run_one_hot<double>, p, {indices, c.in(2), c.out(0)},
         static_cast<double>(y.elements()) * 0.3);
}

void infer_trilu(InferContext& c) {
  const TensorFacts& x = c.input(0);
  if (x.shape.rank() < 2) c.fail(cat("the input must have 2 dimensions or more, not ", x.shape.str()));
  if (c.has_input(1) && (c.input(1).dtype != DType::kI64 || c.input(1).shape.elements() != 1)) {
    c.fail("k must be one int64");
  }
  c.set_output(0, x.dtype, x.shape);
}

struct TriluParams {
  int64_t matrices, rows, columns;
  bool upper;
};
template <class W>
void run_trilu(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const TriluParams*>(params);
  const int64_t k = io[1] ? std::clamp(*reinterpret_cast<const int64_t*>(io[1]), -p.rows, p.columns) : 0;
  const W* x = reinterpret_cast<const W*>(io[0]);
  W* y = reinterpret_cast<W*>(io[2]);
  WorkMeter meter;
  for (int64_t row = 0; row < p.matrices * p.rows && meter.go_on(p.columns); ++row, x += p.columns, y += p.columns) {
    // The upper part keeps columns from the diagonal on, the lower part those up to it.
    const int64_t border = std::clamp<int64_t>(row % p.rows + k + (p.upper ? 0 : 1), 0, p.columns);
    const int64_t first = p.upper ? border : 0, last = p.upper ? p.columns : border;
    if (x != y) std::copy(x + first, x + last, y + first);
    std::fill(y, y + first, W{0});
    std::fill(y + last, y + p.columns, W{0});
  }
}
void lower_trilu(LowerContext& c) {
  const Shape& x = c.input(0).shape;
  const StepFn fn = dispatch_any_width(c.input(0).dtype, []<class W>() -> StepFn { return run_trilu<W>; });
  const size_t rank = x.rank();
  c.in_place(0, 0);
  c.step(fn, TriluParams{x.elements(0, rank - 2), x[rank - 2], x[rank - 1], c.attr_int("upper", 1) != 0},
         {c.in(0), c.in(1), c.out(0)}, static_cast<double>(x.elements()) * 0.3);
}

// Where an element stands decides.
Axes every_axis(const NodeContext&, size_t) { return kAllAxes; }
Axes last_two_axes(const NodeContext& c, size_t i) {
  const auto rank = static_cast<int64_t>(c.input(0).shape.rank());
  return i == 0 && rank >= 2 ? static_cast<Axes>(one_axis(rank - 1) | one_axis(rank - 2)) : Axes{0};
}

void add(OpRegistry& r, std::string_view name, int since, int min_inputs, int max_inputs, InferFn infer, LowerFn lower,
         Axes (*mixed)(const NodeContext&, size_t) = nullptr) {
  r.add({.name = name,
         .since = since,
         .min_inputs = min_inputs,
         .max_inputs = max_inputs,
         .max_outputs = 1,
         .infer = infer,
         .mixed_axes = mixed},
        lower);
}

}  // namespace

void register_generate(OpRegistry& r) {
  add(r, "ConstantOfShape", 9, 1, 1, infer_constant_of_shape, lower_constant_of_shape);
  add(r, "Range", 11, 3, 3, infer_range, lower_range);
  add(r, "EyeLike", 9, 1, 1, infer_eye_like, lower_eye_like, every_axis);
  add(r, "OneHot", 9, 3, 3, infer_one_hot, lower_one_hot);
  add(r, "Trilu", 14, 1, 2, infer_trilu, lower_trilu, last_two_axes);
  add_expanded(r, {.domain = kMicrosoft, .name = "Trilu", .min_inputs = 1, .max_inputs = 2, .max_outputs = 1},
               [](Expansion& e) { e.give(0, e.add("Trilu", 14, {e.in(0), e.in(1)}, e.keep({"upper"}))); });
}

}  // namespace inferkit
