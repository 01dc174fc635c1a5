// What moves elements or only looks at them in another shape.
#include <utility>

#include "engine/cuda/launch.h"

namespace inferkit {
namespace cuda {
namespace {

/// Elements that a kernel can move: those whose bytes are all that they are.
bool moves(DType dtype) { return dtype != DType::kString && dtype_size(dtype) <= 8; }
Cost move_cost(const NodeContext& c) {
  return moves(c.input(0).dtype) ? Cost(0) : Cost::cannot("it moves strings, or elements of more than 8 bytes");
}

void lower_alias(LowerContext& c) { c.alias(0, 0); }

/// Whether both strides lead to the same elements.
bool same_walk(const Shape& shape, const Strides& a, const Strides& b) {
  for (size_t d = 0; d < shape.rank(); ++d) {
    if (shape[d] > 1 && a[d] != b[d]) return false;
  }
  return true;
}

/// io: x, y.
struct StridedParams {
  device::CopyParams copy;
  int64_t from, to;  // where they begin, in elements
};
void run_copy(const void* params, std::byte* const* io, const ExecContext& context) {
  auto [p, from, to] = *static_cast<const StridedParams*>(params);
  p.x = io[0] + from * p.width;
  p.y = io[1] + to * p.width;
  device::TransposeParams tiles{};
  if (device::transposes(p, tiles)) {
    return launch(context, Kernel::transpose, {tiles.tiles.n}, device::kMoveThreads,
                  device::transpose_bytes(tiles.width), tiles);
  }
  device::widen(p);
  launch_elements(context, Kernel::copy_strided, p.nest.n, p);
}

void run_answer(const void* params, std::byte* const* io, const ExecContext& context) {
  const size_t bytes = static_cast<const DeviceAnswer*>(params)->bytes;
  const auto words = static_cast<int64_t>((bytes + sizeof(uint32_t) - 1) / sizeof(uint32_t));
  const device::AnswerParams p{at<uint32_t>(io, 1), at<uint32_t>(io, 2), at<uint64_t>(io, 0), words};
  launch_elements(context, Kernel::answer, words, p);
}

/// Elements [index] of `shape` go from `from` + sum of index * x to `to` + sum of index * y.
void strided(LowerContext& c, Ref in, Ref out, const Shape& shape, const Strides& x, const Strides& y, int64_t from = 0,
             int64_t to = 0) {
  if (!out.valid() || shape.elements() == 0) return;
  StridedParams p{};
  p.copy.nest = nest_of(make_nest<2>(shape, {x, y}));
  p.copy.width = static_cast<int32_t>(dtype_size(c.input(0).dtype));
  p.from = from;
  p.to = to;
  c.step(run_copy, p, {in, out});
}

/// True where output `o` is memory of the input, from element `from` on, and needs no step: parts of a tensor of the
/// run whose elements lie in a row.
bool part_in_place(LowerContext& c, size_t o, int64_t from) {
  const TensorFacts& x = c.input(0);
  return c.output(o).shape.elements() > 0 && c.view(o, 0, static_cast<size_t>(from) * dtype_size(x.dtype));
}

// ---- Transpose and Expand -------------------------------------------------------------------------------------------

void lower_transpose(LowerContext& c) {
  const Shape& x = c.input(0).shape;
  const size_t rank = x.rank();
  const auto perm = c.attr_ints("perm");
  const Strides own = x.strides();
  Strides from{};
  for (size_t i = 0; i < rank; ++i) {
    from[i] =
        own[perm.empty() ? rank - 1 - i : static_cast<size_t>(c.resolve_axis(perm[i], static_cast<int64_t>(rank)))];
  }
  strided(c, c.in(0), c.out(0), c.output(0).shape, from, c.output(0).shape.strides());
}

void lower_expand(LowerContext& c) {
  const Shape &x = c.input(0).shape, &out = c.output(0).shape;
  if (x.elements() == out.elements()) return c.alias(0, 0);
  strided(c, c.in(0), c.out(0), out, broadcast_strides(x, out), out.strides());
}

/// A dimension that repeats is two: one that does not move in x, and its own.
struct Repeated {
  Shape shape;
  Strides from{};
  size_t rank = 0;

  void add(int64_t dim, int64_t stride) {
    if (dim == 1) return;
    if (rank < Shape::kMaxRank) {
      shape.push_back(dim);
      from[rank] = stride;
    }
    ++rank;
  }
};
Repeated repeated(const NodeContext& c) {
  const Shape& x = c.input(0).shape;
  const auto repeats = c.const_ints(1);
  const Strides own = x.strides();
  Repeated out;
  for (size_t i = 0; i < x.rank(); ++i) {
    out.add(repeats[i], 0);
    out.add(x[i], own[i]);
  }
  return out;
}

Cost tile_cost(const NodeContext& c) {
  if (repeated(c).rank > Shape::kMaxRank) return Cost::cannot("it repeats more dimensions than a kernel walks");
  return move_cost(c);
}
void lower_tile(LowerContext& c) {
  if (c.input(0).shape == c.output(0).shape) return c.alias(0, 0);
  const Repeated r = repeated(c);
  strided(c, c.in(0), c.out(0), r.shape, r.from, r.shape.strides());
}

// ---- Trilu ----------------------------------------------------------------------------------------------------------

/// io: x, k, y.
void run_triangle(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::TriangleParams*>(params);
  p.x = io[0];
  p.k = at<int64_t>(io, 1);
  p.y = io[2];
  launch_elements(context, Kernel::keep_triangle, p.matrices * p.rows * p.columns, p);
}
void lower_triangle(LowerContext& c) {
  const Shape& x = c.input(0).shape;
  device::TriangleParams p{};
  p.matrices = x.elements(0, x.rank() - 2);
  p.rows = x[x.rank() - 2];
  p.columns = x.back();
  p.width = static_cast<int32_t>(dtype_size(c.input(0).dtype));
  p.upper = c.attr_int("upper", 1) != 0;
  c.in_place(0, 0);
  c.step(run_triangle, p, {c.in(0), c.has_input(1) ? c.in(1) : Ref{}, c.out(0)});
}

// ---- Slice ----------------------------------------------------------------------------------------------------------

/// The shape rule has found how many elements of each axis are taken, and that all is as it should be.
void lower_slice(LowerContext& c) {
  const Shape &x = c.input(0).shape, &out = c.output(0).shape;
  const bool inputs = c.version() >= 10;
  const auto starts = inputs ? c.const_ints(1) : c.attr_ints("starts");
  std::vector<int64_t> axes, steps;
  if (inputs && c.has_input(3)) axes = c.const_ints(3);
  if (!inputs) axes = c.attr_ints("axes");
  if (inputs && c.has_input(4)) steps = c.const_ints(4);
  Strides from = x.strides();
  int64_t first = 0;
  for (size_t i = 0; i < starts.size(); ++i) {
    const auto axis = axes.empty() ? i : static_cast<size_t>(c.resolve_axis(axes[i], static_cast<int64_t>(x.rank())));
    const int64_t step = steps.empty() ? 1 : steps[i], dim = x[axis];
    const int64_t start = std::clamp<int64_t>(starts[i] < 0 ? starts[i] + dim : starts[i], 0, step > 0 ? dim : dim - 1);
    first += start * from[axis];
    from[axis] *= out[axis] > 1 ? step : 1;
  }
  if (same_walk(out, from, out.strides()) && part_in_place(c, 0, first)) return;
  strided(c, c.in(0), c.out(0), out, from, out.strides(), first);
}

// ---- Concat and Split -----------------------------------------------------------------------------------------------

void lower_concat(LowerContext& c) {
  if (c.input_count() == 1) return c.alias(0, 0);
  const Shape& out = c.output(0).shape;
  const auto axis = static_cast<size_t>(c.attr_axis(1, static_cast<int64_t>(out.rank())));
  const Strides whole = out.strides();
  int64_t to = 0;
  for (size_t i = 0; i < c.input_count(); ++i) {
    const Shape& part = c.input(i).shape;
    strided(c, c.in(i), c.out(0), part, part.strides(), whole, 0, to);
    to += part[axis] * whole[axis];
  }
}

void lower_split(LowerContext& c) {
  const size_t parts = c.node().outputs.size();
  if (parts == 1) return c.alias(0, 0);
  const Shape& x = c.input(0).shape;
  const auto axis = static_cast<size_t>(c.attr_axis(0, static_cast<int64_t>(x.rank())));
  const Strides whole = x.strides();
  int64_t from = 0;
  for (size_t i = 0; i < parts; ++i) {
    const Shape& part = c.output(i).shape;
    if (!same_walk(part, whole, part.strides()) || !part_in_place(c, i, from)) {
      strided(c, c.in(0), c.out(i), part, whole, part.strides(), from);
    }
    from += part[axis] * whole[axis];
  }
}

// ---- Gather ---------------------------------------------------------------------------------------------------------

/// io: x, indices, y.
void run_gather(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::GatherParams*>(params);
  p.x = io[0];
  p.indices = io[1];
  p.y = io[2];
  p.fault = context.queue->fault();
  p.step = context.queue->step();
  device::widen(p);
  launch_elements(context, Kernel::gather_rows, p.outer * p.count * p.row_units, p);
}

void lower_gather(LowerContext& c) {
  const Shape& x = c.input(0).shape;
  const auto axis = static_cast<size_t>(c.attr_axis(0, static_cast<int64_t>(x.rank())));
  if (c.input(1).constant && c.input(1).shape.elements() == 1 && x.elements(0, axis) == 1) {
    const int64_t index = c.const_ints(1)[0], at = index < 0 ? index + x[axis] : index;
    if (at >= 0 && at < x[axis] && part_in_place(c, 0, at * x.strides()[axis])) return;
  }
  device::GatherParams p{};
  p.outer = x.elements(0, axis);
  p.dim = x[axis];
  p.count = c.input(1).shape.elements();
  p.row_units = x.elements(axis + 1, x.rank());
  p.width = static_cast<int32_t>(dtype_size(c.input(0).dtype));
  p.wide = c.input(1).dtype == DType::kI64;
  c.step(run_gather, p, {c.in(0), c.in(1), c.out(0)});
}

// ---- GatherElements and GatherND ------------------------------------------------------------------------------------

/// io: x, indices, y.
template <class Params>
Params gathering(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const Params*>(params);
  p.x = io[0];
  p.indices = io[1];
  p.y = io[2];
  p.fault = context.queue->fault();
  p.step = context.queue->step();
  return p;
}
void run_gather_elements(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto p = gathering<device::GatherElementsParams>(params, io, context);
  launch_elements(context, Kernel::gather_elements, p.nest.n, p);
}
void run_gather_tuples(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto p = gathering<device::GatherTuplesParams>(params, io, context);
  launch_elements(context, Kernel::gather_tuples, p.batches * p.tuples * p.row_units, p);
}

void lower_gather_elements(LowerContext& c) {
  const Shape &x = c.input(0).shape, &indices = c.input(1).shape;
  const auto axis = static_cast<size_t>(c.attr_axis(0, static_cast<int64_t>(x.rank())));
  Strides from = x.strides();
  device::GatherElementsParams p{};
  p.dim = x[axis];
  p.axis_stride = std::exchange(from[axis], 0);
  p.nest = nest_of(make_nest<2>(indices, {from, indices.strides()}));
  p.width = static_cast<int32_t>(dtype_size(c.input(0).dtype));
  p.wide = c.input(1).dtype == DType::kI64;
  c.step(run_gather_elements, p, {c.in(0), c.in(1), c.out(0)});
}

/// The shape rule has found that the tuples fit.
void lower_gather_nd(LowerContext& c) {
  const Shape &x = c.input(0).shape, &indices = c.input(1).shape;
  const auto batch = static_cast<size_t>(c.attr_int("batch_dims", 0)), depth = static_cast<size_t>(indices.back());
  const Strides own = x.strides();
  device::GatherTuplesParams p{};
  p.batches = indices.elements(0, batch);
  p.tuples = indices.elements(batch, indices.rank() - 1);
  p.batch_units = x.elements(batch, x.rank());
  p.row_units = x.elements(batch + depth, x.rank());
  for (size_t d = 0; d < depth; ++d) {
    p.dims[d] = x[batch + d];
    p.strides[d] = own[batch + d];
  }
  p.depth = static_cast<int32_t>(depth);
  p.width = static_cast<int32_t>(dtype_size(c.input(0).dtype));
  p.wide = c.input(1).dtype == DType::kI64;
  c.step(run_gather_tuples, p, {c.in(0), c.in(1), c.out(0)});
}

}  // namespace
}  // namespace cuda

void register_cuda_movement(OpRegistry& r) {
  using namespace cuda;
  r.set_answer(run_answer);
  for (const std::string_view name : {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"}) {
    add_view(r, kOnnx, name, lower_alias, move_cost);
  }
  add_light(r, kOnnx, "Transpose", lower_transpose, move_cost);
  add_light(r, kOnnx, "Expand", lower_expand, move_cost);
  add_light(r, kOnnx, "Tile", lower_tile, tile_cost);
  add_light(r, kOnnx, "Trilu", lower_triangle, move_cost);
  add_light(r, kOnnx, "Slice", lower_slice, move_cost);
  add_light(r, kOnnx, "Concat", lower_concat, move_cost);
  add_light(r, kOnnx, "Split", lower_split, move_cost);
  add_light(r, kOnnx, "Gather", lower_gather, move_cost);
  add_light(r, kOnnx, "GatherElements", lower_gather_elements, move_cost);
  add_light(r, kOnnx, "GatherND", lower_gather_nd, move_cost);
}

}  // namespace inferkit
