// Pooling, and BatchNormalization where nothing takes it in.
#include "kernels/cuda/pool.h"

#include <bit>
#include <cmath>

#include "engine/cuda/launch.h"
#include "engine/cuda/window.h"
#include "graph/passes/pattern.h"
#include "kernels/cuda/rows.h"
#include "kernels/summation.h"

namespace inferkit {
namespace cuda {
namespace {

// ---- MaxPool and AveragePool ----------------------------------------------------------------------------------------

Cost pool_cost(const NodeContext& c) {
  const Window w = pool_window(c);
  constexpr int64_t kMostTaps = int64_t{1} << 24;  // to 2^24, floats have every whole number
  if (!fits(w)) return Cost::cannot("a plane or a window is more than 2^31 elements");
  if (w.kernel_elements() > kMostTaps) return Cost::cannot("a window is more than 2^24 elements");
  return Cost(0);
}

/// io: x, y.
void run_pool(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::PoolParams*>(params);
  p.x = at<float>(io, 0);
  p.y = at<float>(io, 1);
  launch_elements(context, Kernel::pool_planes, p.planes * p.d.out * p.h.out * p.w.out, p);
}

/// io: x, y, indices.
void run_pool_index(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::PoolIndexParams*>(params);
  p.x = at<float>(io, 0);
  p.y = at<float>(io, 1);
  p.index = at<int64_t>(io, 2);
  launch_elements(context, Kernel::pool_max_indexed, p.planes * p.d.out * p.h.out * p.w.out, p);
}

void lower_pool(LowerContext& c) {
  const Window w = pool_window(c);
  const int64_t planes = c.input(0).shape[0] * c.input(0).shape[1];
  if (c.has_output(1)) {
    device::PoolIndexParams p{};
    p.d = axis_of(w.dim[0]);
    p.h = axis_of(w.dim[1]);
    p.w = axis_of(w.dim[2]);
    p.planes = planes;
    p.column_major = c.attr_int("storage_order", 0) != 0;
    return c.step(run_pool_index, p, {c.in(0), c.out(0), c.out(1)});
  }
  device::PoolParams p{};
  p.d = axis_of(w.dim[0]);
  p.h = axis_of(w.dim[1]);
  p.w = axis_of(w.dim[2]);
  p.d_pad_end = static_cast<int32_t>(w.dim[0].pad_end);
  p.h_pad_end = static_cast<int32_t>(w.dim[1].pad_end);
  p.w_pad_end = static_cast<int32_t>(w.dim[2].pad_end);
  p.planes = planes;
  p.average = c.node().op_type == "AveragePool";
  p.h_chunk = static_cast<int32_t>(kernels::sum_chunk(int64_t{p.d.kernel} * p.h.kernel));
  p.w_chunk = static_cast<int32_t>(kernels::sum_chunk(p.w.kernel));
  p.include_pad = c.attr_int("count_include_pad", 0) != 0;
  c.step(run_pool, p, {c.in(0), c.out(0)});
}

// ---- Global forms ---------------------------------------------------------------------------------------------------

/// io: x, y.
void run_global(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::ReduceParams*>(params);
  p.x = at<float>(io, 0);
  p.y = at<float>(io, 1);
  launch(context, Kernel::reduce_rows, {(p.kept.n + device::kRowsOfBlock - 1) / device::kRowsOfBlock},
         device::kRowThreads, 0, p);
}

void lower_global(LowerContext& c) {
  const Shape& x = c.input(0).shape;
  const int64_t rows = x[0] * x[1], n = x.elements(2, x.rank());
  if (rows == 0) return;
  if (n == 0) c.fail(cat("nothing to pool in ", x.str()));
  if (n == 1) return c.alias(0, 0);
  device::ReduceParams p{};
  p.kept = nest_of(make_nest<1>(Shape{rows}, {Strides{n}}));
  p.reduced = nest_of(make_nest<1>(Shape{n}, {Strides{1}}));
  p.op = c.node().op_type == "GlobalMaxPool" ? kernels::Reduce::kMax : kernels::Reduce::kMean;
  c.step(run_global, p, {c.in(0), c.out(0)});
}

// ---- BatchNormalization ---------------------------------------------------------------------------------------------

Cost batch_norm_cost(const NodeContext& c) {
  if (batch_norm_trains(c.node())) return Cost::cannot("it trains");
  for (size_t i = 1; i < 5; ++i) {
    if (!c.input(i).constant || c.input(i).dtype != DType::kF32) {
      return Cost::cannot("scale, bias, mean and variance are no constants in float32");
    }
  }
  return Cost(0);
}

/// io: x, y, table.
void run_affine(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::AffineParams*>(params);
  p.x = at<float>(io, 0);
  p.y = at<float>(io, 1);
  p.scale = at<float>(io, 2);
  launch_elements(context, Kernel::affine, p.batch * p.channels * p.area, p);
}

void lower_batch_norm(LowerContext& c) {
  const Shape& x = c.input(0).shape;
  const bool flat = x.rank() == 1;
  device::AffineParams p{};
  p.batch = x[0];
  p.channels = flat ? 1 : x[1];
  p.area = flat ? 1 : x.elements(2, x.rank());
  if (x.elements() == 0) return;
  const auto epsilon = static_cast<double>(c.attr_float("epsilon", 1e-5f));
  const auto value = [&](size_t i, int64_t channel) {
    return static_cast<double>(c.input(i).constant->as<float>()[channel]);
  };
  const Packing packing{cat("batch-norm-", std::bit_cast<uint64_t>(epsilon)), DType::kF32, 2 * p.channels, {}};
  const Ref table = c.packed({c.input(1).constant, c.input(2).constant, c.input(3).constant, c.input(4).constant},
                             packing, [&](void* to) {
                               float* const out = static_cast<float*>(to);
                               for (int64_t i = 0; i < p.channels; ++i) {
                                 const double a = value(1, i) / std::sqrt(value(4, i) + epsilon);
                                 out[i] = static_cast<float>(a);
                                 out[p.channels + i] = static_cast<float>(value(2, i) - value(3, i) * a);
                               }
                             });
  c.in_place(0, 0);
  c.step(run_affine, p, {c.in(0), c.out(0), table});
}

}  // namespace
}  // namespace cuda

void register_cuda_pool(OpRegistry& r) {
  using namespace cuda;
  constexpr Precision kF32 = Precision::kFloat32;
  add(r, kOnnx, "MaxPool", lower_pool, pool_cost, kF32);
  add(r, kOnnx, "AveragePool", lower_pool, pool_cost, kF32);
  add(r, kOnnx, "GlobalAveragePool", lower_global, nullptr, kF32);
  add(r, kOnnx, "GlobalMaxPool", lower_global, nullptr, kF32);
  add(r, kOnnx, "BatchNormalization", lower_batch_norm, batch_norm_cost, kF32);
}

}  // namespace inferkit
