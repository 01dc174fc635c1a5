// CumSum and CumProd, ScatterElements, OneHot, LRN.
#include <algorithm>

#include "engine/cuda/integers.h"
#include "engine/cuda/launch.h"
#include "kernels/summation.h"

namespace inferkit {
namespace cuda {
namespace {

// ---- CumSum and CumProd ---------------------------------------------------------------------------------------------

/// io: x, y.
void run_cumulate(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::CumulateParams*>(params);
  p.x = io[0];
  p.y = io[1];
  if (p.n > 0) launch_elements(context, Kernel::cumulate, p.outer * p.inner, p);
}

template <bool kProduct>
void lower_cumulate(LowerContext& c) {
  const Shape& x = c.input(0).shape;
  const auto axis = static_cast<size_t>(c.resolve_axis(c.const_ints(1).at(0), static_cast<int64_t>(x.rank())));
  device::CumulateParams p{};
  p.outer = x.elements(0, axis);
  p.n = x[axis];
  p.inner = x.elements(axis + 1, x.rank());
  p.type = element_of(c, c.input(0).dtype);
  p.product = kProduct;
  p.exclusive = c.attr_int("exclusive", 0) != 0;
  p.reverse = c.attr_int("reverse", 0) != 0;
  c.in_place(0, 0);
  c.step(run_cumulate, p, {c.in(0), c.out(0)});
}

// ---- ScatterElements ------------------------------------------------------------------------------------------------

/// io: indices, updates, y.
void run_scatter(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::ScatterParams*>(params);
  p.indices = io[0];
  p.updates = io[1];
  p.y = io[2];
  p.fault = context.queue->fault();
  p.step = context.queue->step();
  launch_elements(context, Kernel::scatter_lines, p.lines.n, p);
}

struct WholeCopy {
  size_t bytes;
};
/// io: x, y.
void run_whole_copy(const void* params, std::byte* const* io, const ExecContext& context) {
  const size_t bytes = static_cast<const WholeCopy*>(params)->bytes;
  if (bytes > 0 && io[0] != io[1]) context.queue->copy(io[1], io[0], bytes);
}

Cost scatter_cost(const NodeContext& c) {
  const DType dtype = c.input(0).dtype;
  const std::string reduction = c.attr_string("reduction", "none");
  if (reduction == "none") {
    const bool moves = dtype != DType::kString && dtype_size(dtype) <= 8;
    return moves ? Cost(0) : Cost::cannot("it moves strings, or elements of more than 8 bytes");
  }
  if (reduction != "add" && reduction != "mul") return Cost::cannot("its reduction is neither 'add' nor 'mul'");
  return number_cost(c);
}

void lower_scatter(LowerContext& c) {
  const Shape &x = c.input(0).shape, &indices = c.input(1).shape;
  const auto axis = static_cast<size_t>(c.attr_axis(0, static_cast<int64_t>(x.rank())));
  const std::string reduction = c.attr_string("reduction", "none");
  const DType dtype = c.input(0).dtype;
  const Strides to = x.strides(), from = indices.strides();
  Shape lines = indices;
  if (lines[axis] > 0) lines[axis] = 1;
  device::ScatterParams p{};
  p.lines = nest_of(make_nest<2>(lines, {to, from}));
  p.n = indices[axis];
  p.dim = x[axis];
  p.axis_stride = to[axis];
  p.update_stride = from[axis];
  p.width = static_cast<int32_t>(dtype_size(dtype));
  p.op = reduction == "add"   ? device::Scatter::kAdd
         : reduction == "mul" ? device::Scatter::kMul
                              : device::Scatter::kReplace;
  if (p.op != device::Scatter::kReplace) p.type = element_of(c, dtype);
  p.wide = c.input(1).dtype == DType::kI64;
  c.in_place(0, 0);
  const auto bytes = static_cast<size_t>(x.elements()) * dtype_size(dtype);
  c.step(run_whole_copy, WholeCopy{bytes}, {c.in(0), c.out(0)});
  c.step(run_scatter, p, {c.in(1), c.in(2), c.out(0)});
}

// ---- OneHot ---------------------------------------------------------------------------------------------------------

/// io: indices, values, y.
void run_one_hot(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::OneHotParams*>(params);
  p.indices = io[0];
  p.values = io[1];
  p.y = io[2];
  launch_elements(context, Kernel::one_hot, p.outer * p.depth * p.inner, p);
}

Cost one_hot_cost(const NodeContext& c) {
  const DType to = c.output(0).dtype;
  if (to == DType::kString || dtype_size(to) > 8) {
    return Cost::cannot("it moves strings, or elements of more than 8 bytes");
  }
  return number_cost(c);
}

void lower_one_hot(LowerContext& c) {
  const Shape &x = c.input(0).shape, &y = c.output(0).shape;
  const auto axis = static_cast<size_t>(c.attr_axis(-1, static_cast<int64_t>(y.rank())));
  device::OneHotParams p{};
  p.outer = x.elements(0, axis);
  p.depth = y[axis];
  p.inner = x.elements(axis, x.rank());
  p.type = element_of(c, c.input(0).dtype);
  p.width = static_cast<int32_t>(dtype_size(c.output(0).dtype));
  c.step(run_one_hot, p, {c.in(0), c.in(2), c.out(0)});
}

// ---- LRN ------------------------------------------------------------------------------------------------------------

/// io: x, y.
void run_neighbours(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::NeighboursParams*>(params);
  p.x = at<float>(io, 0);
  p.y = at<float>(io, 1);
  launch_elements(context, Kernel::scale_by_neighbours, p.batch * p.channels * p.area, p);
}

void lower_neighbours(LowerContext& c) {
  const Shape& x = c.input(0).shape;
  if (x.rank() < 2) c.fail(cat("expected [batch, channels, ...], got ", x.str()));
  device::NeighboursParams p{};
  p.batch = x[0];
  p.channels = x[1];
  p.area = x.elements(2, x.rank());
  p.size = c.attr_int("size", 0);
  p.chunk = kernels::sum_chunk(std::min(p.size, 4 * kernels::kLongestChunk));
  p.factor = c.attr_float("alpha", 1e-4f) / static_cast<float>(p.size);
  p.bias = c.attr_float("bias", 1.0f);
  p.power = -c.attr_float("beta", 0.75f);
  c.step(run_neighbours, p, {c.in(0), c.out(0)});
}

}  // namespace
}  // namespace cuda

void register_cuda_lines(OpRegistry& r) {
  using namespace cuda;
  add_light(r, kOnnx, "CumSum", lower_cumulate<false>, number_cost);
  add_light(r, kOnnx, "CumProd", lower_cumulate<true>, number_cost);
  add_light(r, kOnnx, "Scatter", lower_scatter, scatter_cost);
  add_light(r, kOnnx, "ScatterElements", lower_scatter, scatter_cost);
  add_light(r, kOnnx, "OneHot", lower_one_hot, one_hot_cost);
  add(r, kOnnx, "LRN", lower_neighbours, nullptr, Precision::kFloat32);
}

}  // namespace inferkit
