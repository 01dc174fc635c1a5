// Resize and Upsample: nearest moves elements of any type, the other modes interpolate float32 axis by axis.
#include "engine/compile/resize_plan.h"
#include "engine/cuda/launch.h"
#include "kernels/summation.h"

namespace inferkit {
namespace cuda {
namespace {

struct Tables {
  ResizePlan plan;
  std::vector<ResizeTable> of_axis;
  bool identity = true, moves = true;  // moves: every element is one of the input's
};
Tables tables_of(const NodeContext& c) {
  Tables out;
  out.plan = resize_plan(c);
  out.moves = out.plan.mode == ResizeMode::kNearest;
  for (const ResizeAxis& axis : out.plan.axes) {
    const ResizeTable& table = out.of_axis.emplace_back(resize_table(c, out.plan, axis));
    out.identity = out.identity && table.is_identity(axis);
    out.moves = out.moves && !table.extrapolates();
  }
  return out;
}

Cost resize_cost(const NodeContext& c) {
  const DType dtype = c.input(0).dtype;
  if (dtype == DType::kString || dtype_size(dtype) > 8)
    return Cost::cannot("it resizes strings, or elements of 16 bytes");
  if (dtype == DType::kF32) return Cost(0);
  const Tables tables = tables_of(c);
  return tables.identity || tables.moves ? Cost(0) : Cost::cannot("it interpolates, and is not of float32");
}

template <class T>
Ref keep(LowerContext& c, std::vector<T> values) {
  const auto owner = std::make_shared<const std::vector<T>>(std::move(values));
  return c.constant(owner->data(), owner, owner->size() * sizeof(T));
}

/// io: x, index, y.
void run_nearest(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::PickParams*>(params);
  p.x = io[0];
  p.index = at<int64_t>(io, 1);
  p.y = io[2];
  launch_elements(context, Kernel::pick, p.n, p);
}

void lower_nearest(LowerContext& c, const Tables& tables) {
  const Shape &x = c.input(0).shape, &out = c.output(0).shape;
  const Strides strides = x.strides();
  device::PickParams p{};
  p.n = out.elements();
  p.rank = static_cast<int32_t>(out.rank());
  p.width = static_cast<int32_t>(dtype_size(c.input(0).dtype));
  std::vector<int64_t> index;
  for (size_t d = 0; d < out.rank(); ++d) {
    p.dims[d] = out[d];
    p.strides[d] = strides[d];
    p.table[d] = static_cast<int64_t>(index.size());
    index.insert(index.end(), tables.of_axis[d].index.begin(), tables.of_axis[d].index.end());
  }
  c.step(run_nearest, p, {c.in(0), keep(c, std::move(index)), c.out(0)});
}

/// io: y, x, index, weights.
void run_pass(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::ResizeParams*>(params);
  p.y = at<float>(io, 0);
  p.x = at<float>(io, 1);
  p.index = at<int64_t>(io, 2);
  p.weights = at<float>(io, 3);
  launch_elements(context, Kernel::resize_pass, p.outer * p.out * p.inner, p);
}

/// From the last axis to the first, as on the CPU.
void lower_passes(LowerContext& c, const Tables& tables) {
  std::vector<size_t> axes;
  for (size_t d = tables.of_axis.size(); d-- > 0;) {
    if (!tables.of_axis[d].is_identity(tables.plan.axes[d])) axes.push_back(d);
  }
  Shape shape = c.input(0).shape;
  Ref from = c.in(0);
  for (const size_t d : axes) {
    const ResizeTable& table = tables.of_axis[d];
    device::ResizeParams p{};
    p.outer = shape.elements(0, d);
    p.in = shape[d];
    p.out = tables.plan.axes[d].out;
    p.inner = shape.elements(d + 1, shape.rank());
    p.taps = table.taps;
    p.chunk = kernels::sum_chunk(p.taps);
    p.outside = tables.plan.extrapolation;
    shape[d] = p.out;
    const bool last = d == axes.back();
    const Ref to = last ? c.out(0) : c.scratch(static_cast<size_t>(shape.elements()) * sizeof(float));
    std::vector<float> weights;
    for (const double weight : table.weights) weights.push_back(static_cast<float>(weight));
    c.step(run_pass, p, {to, from, keep(c, table.index), keep(c, std::move(weights))});
    from = to;
  }
}

void lower_resize(LowerContext& c) {
  const Tables tables = tables_of(c);
  if (c.output(0).shape.elements() == 0) return;
  if (tables.identity) return c.alias(0, 0);
  tables.moves ? lower_nearest(c, tables) : lower_passes(c, tables);
}

}  // namespace
}  // namespace cuda

void register_cuda_resize(OpRegistry& r) {
  using namespace cuda;
  add(r, kOnnx, "Resize", lower_resize, resize_cost);
  add(r, kOnnx, "Upsample", lower_resize, resize_cost);
}

}  // namespace inferkit
