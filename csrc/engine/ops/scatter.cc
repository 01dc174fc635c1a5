// ScatterElements (Scatter before opset 11), ScatterND: a copy of the data, then the updates in their order, so that
// where indices repeat the last one wins and reductions always sum in the same order. TensorScatter: a cache update.
#include <algorithm>
#include <cstring>

#include "engine/compile/op_registry.h"
#include "engine/compile/strided.h"
#include "engine/ops/common/any_width.h"
#include "engine/ops/common/copy_rows.h"
#include "engine/ops/indices.h"

namespace inferkit {
namespace {

enum class Reduction : uint8_t { kNone, kAdd, kMul, kMax, kMin };

Reduction reduction_of(const NodeContext& c) {
  // Exporters write what later opsets define (torch: max and min at opset 16): it means what it means there.
  const std::string name = c.attr_string("reduction", "none");
  if (name == "none") return Reduction::kNone;
  if (name == "add") return Reduction::kAdd;
  if (name == "mul") return Reduction::kMul;
  if (name == "max") return Reduction::kMax;
  if (name == "min") return Reduction::kMin;
  c.unsupported("reduction '" + name + "'");
}

/// The attribute, and that the data's type has the operation.
void check_reduction(const NodeContext& c) {
  const bool none = reduction_of(c) == Reduction::kNone;
  if (!none) require_type(c, 0, kNumberTypes);
}

template <class T>
struct None {
  static T apply(T, T update) { return update; }
};
template <class T, Reduction kOp>
struct Combine {
  static T apply(T old, T update) {
    using C = Compute<T>;
    const C a = load(old), b = load(update);
    if constexpr (kOp == Reduction::kMax)
      return a > b || a != a ? old : update;  // NaN where either is NaN
    else if constexpr (kOp == Reduction::kMin)
      return a < b || a != a ? old : update;
    else if constexpr (std::is_integral_v<C>) {
      const auto x = static_cast<uint64_t>(a), y = static_cast<uint64_t>(b);
      return static_cast<T>(kOp == Reduction::kAdd ? x + y : x * y);
    } else {
      return store<T>(kOp == Reduction::kAdd ? a + b : a * b);
    }
  }
};

/// Indices of which the step's params say how wide they are (`wide`): for reductions, of which there are many.
struct EitherWidth {};

// make.operator()<T, Op, I>() for the types and reduction of the node, whose data is of `dtype`. Sums and products of
// integers do not look at the sign.
template <class F>
auto dispatch_reduction(const NodeContext& c, DType dtype, F&& make) {
  const Reduction reduction = reduction_of(c);
  const auto with = [&]<class T, class Op>() { return make.template operator()<T, Op, EitherWidth>(); };
  if (reduction == Reduction::kNone) {
    return dispatch_any_width(dtype, [&]<class W>() {
      return dispatch<kIndexTypes>(c.input(1).dtype,
                                   [&]<class I>() { return make.template operator()<W, None<W>, I>(); });
    });
  }
  if (reduction == Reduction::kAdd || reduction == Reduction::kMul) {
    return dispatch<kNumberTypes & ~kSignedTypes>(signless(dtype), [&]<class T>() {
      return reduction == Reduction::kAdd ? with.template operator()<T, Combine<T, Reduction::kAdd>>()
                                          : with.template operator()<T, Combine<T, Reduction::kMul>>();
    });
  }
  return dispatch<kNumberTypes>(dtype, [&]<class T>() {
    return reduction == Reduction::kMax ? with.template operator()<T, Combine<T, Reduction::kMax>>()
                                        : with.template operator()<T, Combine<T, Reduction::kMin>>();
  });
}

struct CopyParams {
  int64_t bytes;
};
void run_copy(const void* params, std::byte* const* io, const ExecContext&) {
  const int64_t bytes = static_cast<const CopyParams*>(params)->bytes;
  if (io[1] != io[0] && bytes > 0) copy_in_blocks(io[1], io[0], static_cast<size_t>(bytes));
}

// The data reach the output in a step of their own, which is free where they already lie there. Indices and updates
// are read by the next step: if one of them shares the data's memory, the planner sees that it is still needed.
void add_copy(LowerContext& c, int64_t bytes) {
  c.in_place(0, 0);
  c.step(run_copy, CopyParams{bytes}, {c.in(0), c.out(0)}, static_cast<double>(bytes) / 16);
}

int64_t bytes_of(const TensorFacts& x) { return x.shape.elements() * static_cast<int64_t>(dtype_size(x.dtype)); }

struct ElementsParams {
  LoopNest<2> nest;  // data without the axis; indices and updates
  int64_t dim, axis_stride;
  bool wide;  // indices of 64 bits
  void (*loop)(const ElementsParams& p, std::byte* const* io, std::array<int64_t, 2> at, int64_t rows, int64_t n);
};

template <class T, class Op, class I>
void elements_loop(const ElementsParams& p, std::byte* const* io, std::array<int64_t, 2> at, int64_t rows, int64_t n) {
  const T* updates = reinterpret_cast<const T*>(io[1]);
  T* out = reinterpret_cast<T*>(io[2]);
  const int64_t step = p.nest.inner_stride(0), dim = p.dim, axis_stride = p.axis_stride;
  for (int64_t r = 0; r < rows; ++r, at[0] += p.nest.row_stride(0), at[1] += p.nest.row_stride(1)) {
    for (int64_t i = 0; i < n; ++i) {
      const int64_t index = [&] {
        if constexpr (!std::is_same_v<I, EitherWidth>) return index_at<I>(io[0], at[1] + i, dim);
        return p.wide ? index_at<int64_t>(io[0], at[1] + i, dim) : index_at<int32_t>(io[0], at[1] + i, dim);
      }();
      T& target = out[at[0] + i * step + index * axis_stride];
      target = Op::apply(target, updates[at[1] + i]);
    }
  }
}

void run_scatter_elements(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const ElementsParams*>(params);
  for_each_block(p.nest, [&](const auto& at, int64_t rows, int64_t n) { p.loop(p, io, at, rows, n); });
}

size_t axis_of(const NodeContext& c) {
  return static_cast<size_t>(c.attr_axis(0, static_cast<int64_t>(c.input(0).shape.rank())));
}

void infer_scatter_elements(InferContext& c) {
  check_reduction(c);
  require_indices(c, 1);
  require_same_type(c, 0, 2);
  const Shape &x = c.input(0).shape, &indices = c.input(1).shape;
  const size_t axis = axis_of(c);
  bool fits = x.rank() == indices.rank() && indices == c.input(2).shape;
  for (size_t d = 0; d < x.rank() && fits; ++d) fits = d == axis || indices[d] <= x[d];
  if (!fits) {
    c.fail(cat("indices ", indices.str(), " and updates ", c.input(2).shape.str(), " do not fit data ", x.str()));
  }
  c.set_output(0, c.input(0).dtype, x);
}

void lower_scatter_elements(LowerContext& c) {
  const size_t axis = axis_of(c);
  const Shape &x = c.input(0).shape, &indices = c.input(1).shape;
  Strides strides = x.strides();
  ElementsParams p{{}, x[axis], strides[axis], c.input(1).dtype == DType::kI64, nullptr};
  strides[axis] = 0;
  p.nest = make_nest<2>(indices, {strides, indices.strides()});
  p.loop =
      dispatch_reduction(c, c.input(0).dtype, []<class T, class Op, class I>() { return &elements_loop<T, Op, I>; });
  if (!p.loop) c.unsupported(cat("data of type ", dtype_name(c.input(0).dtype)));
  add_copy(c, bytes_of(c.input(0)));
  c.step(run_scatter_elements, p, {c.in(1), c.in(2), c.out(0)}, static_cast<double>(indices.elements()) * 2);
}

struct NdParams {
  int64_t tuples, row;  // row: elements per update
  size_t depth;
  bool wide;              // indices of 64 bits
  Strides dims, strides;  // of the indexed dimensions, in elements
};

/// Once for both types of indices, of which there is a look for each update.
template <class T, class Op>
void run_scatter_nd(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const NdParams*>(params);
  const T* update = reinterpret_cast<const T*>(io[1]);
  int64_t at = 0;
  WorkMeter meter;
  for_blocks(meter, 0, p.tuples, 4 + p.row, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t, update += p.row) {
      T* target = reinterpret_cast<T*>(io[2]);
      for (size_t d = 0; d < p.depth; ++d, ++at) {
        const int64_t dim = p.dims[d];
        target += (p.wide ? index_at<int64_t>(io[0], at, dim) : index_at<int32_t>(io[0], at, dim)) * p.strides[d];
      }
      for (int64_t i = 0; i < p.row; ++i) target[i] = Op::apply(target[i], update[i]);
    }
  });
}

void infer_scatter_nd(InferContext& c) {
  check_reduction(c);
  require_indices(c, 1);
  require_same_type(c, 0, 2);
  const Shape &x = c.input(0).shape, &indices = c.input(1).shape;
  if (indices.empty() || indices.back() > static_cast<int64_t>(x.rank())) {
    c.fail(cat("indices of shape ", indices.str(), " for data of shape ", x.str()));
  }
  Shape updates = indices;
  updates.erase(indices.rank() - 1);
  for (auto i = static_cast<size_t>(indices.back()); i < x.rank(); ++i) updates.push_back(x[i]);
  if (!(updates == c.input(2).shape)) {
    c.fail(cat("updates must have shape ", updates.str(), ", not ", c.input(2).shape.str()));
  }
  c.set_output(0, c.input(0).dtype, x);
}

void lower_scatter_nd(LowerContext& c) {
  const Shape &x = c.input(0).shape, &indices = c.input(1).shape;
  const Strides strides = x.strides();
  NdParams p{};
  p.depth = static_cast<size_t>(indices.back());
  p.wide = c.input(1).dtype == DType::kI64;
  p.tuples = indices.elements(0, indices.rank() - 1);
  p.row = x.elements(p.depth, x.rank());
  for (size_t d = 0; d < p.depth; ++d) {
    p.dims[d] = x[d];
    p.strides[d] = strides[d];
  }
  const StepFn fn =
      dispatch_reduction(c, c.input(0).dtype, []<class T, class Op, class>() { return &run_scatter_nd<T, Op>; });
  if (!fn) c.unsupported(cat("data of type ", dtype_name(c.input(0).dtype)));
  add_copy(c, bytes_of(c.input(0)));
  c.step(fn, p, {c.in(1), c.in(2), c.out(0)}, static_cast<double>(p.tuples) * (3 + static_cast<double>(p.row)));
}

struct CacheParams {
  int64_t batches, rows;  // rows: the dimensions between the batch and the axis
  int64_t length, count;  // of the axis, in the cache and in the update
  int64_t row_bytes;
  bool circular;
};

void run_tensor_scatter(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const CacheParams*>(params);
  const auto* starts = reinterpret_cast<const int64_t*>(io[1]);
  const std::byte* update = io[0];
  WorkMeter meter;
  for (int64_t b = 0; b < p.batches; ++b) {
    const int64_t start = starts ? starts[b] : 0;
    if (start < 0 || start > (p.circular ? p.length - 1 : p.length - p.count)) throw_index(start, p.length);
    for (int64_t r = 0; r < p.rows && meter.go_on(p.count * row_nanos(p.row_bytes)); ++r) {
      std::byte* cache = io[2] + (b * p.rows + r) * p.length * p.row_bytes;
      for (int64_t i = 0; i < p.count; ++i, update += p.row_bytes) {
        copy_row(cache + (start + i) % p.length * p.row_bytes, update, p.row_bytes);
      }
    }
  }
}

size_t cache_axis(const NodeContext& c) {
  const auto axis = c.attr_axis(-2, static_cast<int64_t>(c.input(0).shape.rank()));
  if (axis == 0) c.fail("the axis is the batch");
  return static_cast<size_t>(axis);
}

bool is_circular(const NodeContext& c) {
  const std::string mode = c.attr_string("mode", "linear");
  if (mode != "linear" && mode != "circular") c.unsupported("mode '" + mode + "'");
  return mode == "circular";
}

void infer_tensor_scatter(InferContext& c) {
  is_circular(c);
  require_same_type(c, 0, 1);
  const Shape &x = c.input(0).shape, &update = c.input(1).shape;
  const size_t axis = cache_axis(c);
  bool fits = x.rank() == update.rank();
  for (size_t d = 0; d < x.rank() && fits; ++d) fits = d == axis ? update[d] <= x[d] : update[d] == x[d];
  if (!fits) c.fail(cat("an update of shape ", update.str(), " for a cache of ", x.str()));
  if (c.has_input(2)) {
    const TensorFacts& starts = c.input(2);
    if (starts.dtype != DType::kI64 || !(starts.shape == Shape{x[0]}))
      c.fail("write_indices must be int64, one a batch");
  }
  c.set_output(0, c.input(0).dtype, x);
}

void lower_tensor_scatter(LowerContext& c) {
  const TensorFacts& x = c.input(0);
  const size_t axis = cache_axis(c);
  const int64_t row = x.shape.elements(axis + 1, x.shape.rank()) * static_cast<int64_t>(dtype_size(x.dtype));
  const CacheParams p{x.shape[0],    x.shape.elements(1, axis), x.shape[axis], c.input(1).shape[axis], row,
                      is_circular(c)};
  add_copy(c, bytes_of(c.input(0)));
  c.step(run_tensor_scatter, p, {c.in(1), c.in(2), c.out(0)}, static_cast<double>(bytes_of(c.input(1))) / 16);
}

/// What is scattered may go to any row, whichever one it comes from.
Axes mixed_by_scatter(const NodeContext& c, size_t) {
  const size_t axis = axis_of(c);
  return static_cast<Axes>(one_axis(static_cast<int64_t>(axis)) | axes_counted_from_first(c, axis));
}
Axes mixed_by_tensor_scatter(const NodeContext& c, size_t) { return one_axis(static_cast<int64_t>(cache_axis(c))); }
Axes mixed_by_scatter_nd(const NodeContext& c, size_t i) {
  const Shape& indices = c.input(1).shape;
  if (indices.rank() == 0) return 0;
  const int64_t axes = i == 0 ? std::clamp<int64_t>(indices.back(), 0, 8) : static_cast<int64_t>(indices.rank()) - 1;
  return static_cast<Axes>((1u << axes) - 1);
}

void add(OpRegistry& r, std::string_view name, int since, int until, InferFn infer, LowerFn lower,
         Axes (*mixed)(const NodeContext&, size_t)) {
  r.add({.name = name,
         .since = since,
         .until = until,
         .min_inputs = 3,
         .max_inputs = 3,
         .max_outputs = 1,
         .infer = infer,
         .mixed_axes = mixed},
        lower);
}

}  // namespace

void register_scatter(OpRegistry& r) {
  constexpr int kNewest = 1'000'000;
  add(r, "Scatter", 9, 10, infer_scatter_elements, lower_scatter_elements, mixed_by_scatter);
  add(r, "ScatterElements", 11, kNewest, infer_scatter_elements, lower_scatter_elements, mixed_by_scatter);
  add(r, "ScatterND", 11, kNewest, infer_scatter_nd, lower_scatter_nd, mixed_by_scatter_nd);
  r.add({.name = "TensorScatter",
         .since = 24,
         .min_inputs = 2,
         .max_inputs = 3,
         .max_outputs = 1,
         .infer = infer_tensor_scatter,
         .mixed_axes = mixed_by_tensor_scatter},
        lower_tensor_scatter);
}

}  // namespace inferkit
