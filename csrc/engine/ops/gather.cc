// Gather, GatherElements, GatherND: picking rows, elements or slices by indices that are data.
#include <algorithm>

#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/compile/strided.h"
#include "engine/ops/common/any_width.h"
#include "engine/ops/common/copy_rows.h"
#include "engine/ops/indices.h"

namespace inferkit {
namespace {

size_t axis_of(const NodeContext& c) {
  return static_cast<size_t>(c.attr_axis(0, static_cast<int64_t>(c.input(0).shape.rank())));
}

struct GatherParams {
  int64_t outer, dim, count, row_bytes;
};

template <class I>
void run_gather(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const GatherParams*>(params);
  std::byte* to = io[2];
  WorkMeter meter;
  const auto rows = [&](int64_t o, int64_t first, int64_t last) {
    const std::byte* from = io[0] + o * p.dim * p.row_bytes;
    for (int64_t i = first; i < last; ++i, to += p.row_bytes) {
      copy_row(to, from + index_at<I>(io[1], i, p.dim) * p.row_bytes, p.row_bytes);
    }
  };
  for_line_blocks(meter, p.outer, p.count, row_nanos(p.row_bytes), rows);
}

void infer_gather(InferContext& c) {
  require_indices(c, 1);
  const size_t axis = axis_of(c);
  Shape out = c.input(0).shape;
  const Shape& indices = c.input(1).shape;
  out.erase(axis);
  for (size_t i = 0; i < indices.rank(); ++i) out.insert(axis + i, indices[i]);
  c.set_output(0, c.input(0).dtype, out);
}

void lower_gather(LowerContext& c) {
  const size_t axis = axis_of(c);
  const Shape& x = c.input(0).shape;
  const int64_t row = x.elements(axis + 1, x.rank()) * static_cast<int64_t>(dtype_size(c.input(0).dtype));
  const GatherParams p{x.elements(0, axis), x[axis], c.input(1).shape.elements(), row};
  const StepFn fn = dispatch<kIndexTypes>(c.input(1).dtype, []<class I>() -> StepFn { return run_gather<I>; });
  c.step(fn, p, {c.in_bytes(0), c.in(1), c.out(0)}, multiplied(p.outer, p.count) * (2 + static_cast<double>(row) / 16));
}

struct ElementsParams {
  LoopNest<2> nest;  // data without the axis; indices and out
  int64_t dim, axis_stride;
};

template <class W, class I>
void run_gather_elements(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const ElementsParams*>(params);
  const W* data = reinterpret_cast<const W*>(io[0]);
  W* out = reinterpret_cast<W*>(io[2]);
  const int64_t step = p.nest.inner_stride(0);
  for_each_piece(p.nest, [&](const auto& at, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      const int64_t index = index_at<I>(io[1], at[1] + i, p.dim);
      out[at[1] + i] = data[at[0] + i * step + index * p.axis_stride];
    }
  });
}

void infer_gather_elements(InferContext& c) {
  require_indices(c, 1);
  const Shape &x = c.input(0).shape, &indices = c.input(1).shape;
  const size_t axis = axis_of(c);
  bool fits = x.rank() == indices.rank();
  for (size_t d = 0; d < x.rank() && fits; ++d) fits = d == axis || indices[d] <= x[d];
  if (!fits) c.fail(cat("indices of shape ", indices.str(), " do not fit data of shape ", x.str()));
  c.set_output(0, c.input(0).dtype, indices);
}

void lower_gather_elements(LowerContext& c) {
  const size_t axis = axis_of(c);
  const Shape &x = c.input(0).shape, &indices = c.input(1).shape;
  Strides strides = x.strides();
  ElementsParams p{{}, x[axis], strides[axis]};
  strides[axis] = 0;
  p.nest = make_nest<2>(indices, {strides, indices.strides()});
  const StepFn fn = dispatch_any_width(c.input(0).dtype, [&]<class W>() -> StepFn {
    return dispatch<kIndexTypes>(c.input(1).dtype, []<class I>() -> StepFn { return run_gather_elements<W, I>; });
  });
  c.step(fn, p, {c.in(0), c.in(1), c.out(0)}, static_cast<double>(indices.elements()) * 2);
}

struct NdParams {
  int64_t batches, tuples;  // tuples of each batch
  int64_t batch_bytes, row_bytes;
  size_t depth;           // of a tuple
  Strides dims, strides;  // of the indexed dimensions; strides in bytes
};

template <class I>
void run_gather_nd(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const NdParams*>(params);
  std::byte* to = io[2];
  int64_t at = 0;
  WorkMeter meter;
  const auto rows = [&](int64_t b, int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t, to += p.row_bytes) {
      int64_t offset = b * p.batch_bytes;
      for (size_t d = 0; d < p.depth; ++d, ++at) offset += index_at<I>(io[1], at, p.dims[d]) * p.strides[d];
      copy_row(to, io[0] + offset, p.row_bytes);
    }
  };
  for_line_blocks(meter, p.batches, p.tuples, row_nanos(p.row_bytes), rows);
}

size_t batch_dims(const NodeContext& c) {
  const int64_t b = c.attr_int("batch_dims", 0);
  if (b < 0) c.fail(cat("batch_dims ", b));
  const Shape &x = c.input(0).shape, &indices = c.input(1).shape;
  if (indices.empty()) c.fail("indices must have a dimension");
  if (b < 0 || b >= static_cast<int64_t>(std::min(x.rank(), indices.rank()))) c.fail(cat("batch_dims ", b));
  const auto n = static_cast<size_t>(b);
  const int64_t depth = indices.back();
  if (depth < 0 || depth > static_cast<int64_t>(x.rank() - n)) {
    c.fail(cat("tuples of ", counted(depth, "index", "indices"), " for data of shape ", x.str()));
  }
  for (size_t i = 0; i < n; ++i) {
    if (x[i] != indices[i]) c.fail(cat("batch dimensions of ", x.str(), " and ", indices.str(), " differ"));
  }
  return n;
}

void infer_gather_nd(InferContext& c) {
  require_indices(c, 1);
  const size_t batch = batch_dims(c);
  const Shape &x = c.input(0).shape, &indices = c.input(1).shape;
  const size_t first = batch + static_cast<size_t>(indices.back());
  Shape out = indices;
  out.erase(indices.rank() - 1);
  for (size_t i = first; i < x.rank(); ++i) out.push_back(x[i]);
  c.set_output(0, c.input(0).dtype, out);
}

void lower_gather_nd(LowerContext& c) {
  const Shape &x = c.input(0).shape, &indices = c.input(1).shape;
  const size_t b = batch_dims(c);
  const auto size = static_cast<int64_t>(dtype_size(c.input(0).dtype));
  const Strides strides = x.strides();
  NdParams p{};
  p.depth = static_cast<size_t>(indices.back());
  p.batches = indices.elements(0, b);
  p.tuples = indices.elements(b, indices.rank() - 1);
  p.batch_bytes = x.elements(b, x.rank()) * size;
  p.row_bytes = x.elements(b + p.depth, x.rank()) * size;
  for (size_t d = 0; d < p.depth; ++d) {
    p.dims[d] = x[b + d];
    p.strides[d] = strides[b + d] * size;
  }
  const StepFn fn = dispatch<kIndexTypes>(c.input(1).dtype, []<class I>() -> StepFn { return run_gather_nd<I>; });
  c.step(fn, p, {c.in(0), c.in(1), c.out(0)},
         multiplied(p.batches, p.tuples) * (3 + static_cast<double>(p.row_bytes) / 16));
}

/// What an index picks may be of any row, whichever one the index is in.
Axes mixed_by_gather(const NodeContext& c, size_t i) {
  return i == 0 ? one_axis(static_cast<int64_t>(axis_of(c))) : Axes{0};
}
Axes mixed_by_gather_elements(const NodeContext& c, size_t i) {
  return static_cast<Axes>(mixed_by_gather(c, i) | axes_counted_from_first(c, axis_of(c)));
}
Axes mixed_by_gather_nd(const NodeContext& c, size_t i) {
  const Shape& indices = c.input(1).shape;
  if (i != 0 || indices.rank() == 0) return 0;
  const int64_t first = c.attr_int("batch_dims", 0), end = std::clamp<int64_t>(first + indices.back(), 0, 8);
  Axes out = 0;
  for (int64_t axis = first; axis < end; ++axis) out = static_cast<Axes>(out | one_axis(axis));
  return out;
}

void add(OpRegistry& r, std::string_view name, int since, InferFn infer, LowerFn lower,
         Axes (*mixed)(const NodeContext&, size_t)) {
  r.add({.name = name,
         .since = since,
         .min_inputs = 2,
         .max_inputs = 2,
         .max_outputs = 1,
         .infer = infer,
         .mixed_axes = mixed},
        lower);
}

}  // namespace

void register_gather(OpRegistry& r) {
  add(r, "Gather", 1, infer_gather, lower_gather, mixed_by_gather);
  add(r, "GatherElements", 11, infer_gather_elements, lower_gather_elements, mixed_by_gather_elements);
  add(r, "GatherND", 11, infer_gather_nd, lower_gather_nd, mixed_by_gather_nd);
}

}  // namespace inferkit
