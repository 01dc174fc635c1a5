// Softmax, normalisations and reductions.
#include <optional>

#include "engine/cuda/integers.h"
#include "engine/cuda/launch.h"

namespace inferkit {
namespace cuda {
namespace {

// ---- Softmax and LogSoftmax -----------------------------------------------------------------------------------------

/// io: x, y.
void run_softmax(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::SoftmaxParams*>(params);
  p.x = at<float>(io, 0);
  p.y = at<float>(io, 1);
  launch_rows(context, Kernel::softmax_rows, p.outer * p.inner, p);
}

void lower_softmax(LowerContext& c) {
  const Shape& x = c.input(0).shape;
  const auto rank = static_cast<int64_t>(x.rank());
  size_t first = 0, end = x.rank();
  if (rank > 0 && c.version() >= 13) {  // one axis; before, all from that axis on
    first = static_cast<size_t>(c.attr_axis(-1, rank));
    end = first + 1;
  } else if (rank > 1) {
    first = static_cast<size_t>(c.attr_axis(1, rank));
  }
  device::SoftmaxParams p{};
  p.outer = x.elements(0, first);
  p.n = x.elements(first, end);
  p.inner = x.elements(end, x.rank());
  p.log = c.node().op_type == "LogSoftmax";
  c.in_place(0, 0);
  c.step(run_softmax, p, {c.in(0), c.out(0)});
}

// ---- Normalisations -------------------------------------------------------------------------------------------------

/// io: x, y, scale, bias; the last two may be null.
void run_norm(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::NormParams*>(params);
  p.x = at<float>(io, 0);
  p.y = at<float>(io, 1);
  p.scale = at<float>(io, 2);
  p.bias = at<float>(io, 3);
  launch_rows(context, Kernel::norm_rows, p.rows, p);
}

Cost norm_cost(const NodeContext& c) {
  if (c.has_output(1) || c.has_output(2)) return Cost::cannot("it gives the mean or the deviation, too");
  if (!(c.input(0).shape == c.output(0).shape)) return Cost::cannot("its scale stretches rows of one element");
  const Shape& x = c.input(0).shape;
  const Shape row(x.dims().subspan(static_cast<size_t>(c.attr_axis(-1, static_cast<int64_t>(x.rank())))));
  for (size_t i = 1; i < 3 && c.has_input(i); ++i) {
    if (!repeats_nothing(c.input(i).shape, row)) return Cost::cannot("its scale or bias is broadcast");
  }
  return Cost(0);
}

void lower_norm(LowerContext& c) {
  const Shape& x = c.input(0).shape;
  const auto axis = static_cast<size_t>(c.attr_axis(-1, static_cast<int64_t>(x.rank())));
  device::NormParams p{};
  p.rows = x.elements(0, axis);
  p.n = x.elements(axis, x.rank());
  p.epsilon = c.attr_float("epsilon", 1e-5f);
  p.center = c.node().op_type != "RMSNormalization";
  c.in_place(0, 0);
  const auto given = [&](size_t i) { return c.has_input(i) ? c.in(i) : Ref{}; };
  c.step(run_norm, p, {c.in(0), c.out(0), given(1), given(2)});
}

/// InstanceNormalization and GroupNormalization: rows of the elements of a group, with a scale for each group, or, from
/// opset 21 on, for each channel. Shape inference has seen to it that they fit.
void lower_groups(LowerContext& c) {
  const Shape& x = c.input(0).shape;
  const bool instance = c.node().op_type == "InstanceNormalization", per_channel = !instance && c.version() >= 21;
  const int64_t channels = x[1], area = x.elements(2, x.rank());
  device::NormParams p{};
  p.groups = instance ? channels : c.attr_int("num_groups", 0);
  p.rows = x[0] * p.groups;
  p.n = channels / p.groups * area;
  p.per_group = per_channel ? channels / p.groups : 1;
  p.inner = per_channel ? area : p.n;
  p.epsilon = c.attr_float("epsilon", 1e-5f);
  p.center = true;
  c.in_place(0, 0);
  c.step(run_norm, p, {c.in(0), c.out(0), c.in(1), c.in(2)});
}

// ---- Reductions -----------------------------------------------------------------------------------------------------

using After = device::ReduceParams::After;
using device::WholeReduce;
struct Reduction {
  std::string_view name;
  kernels::Reduce op;
  std::optional<WholeReduce> whole = {};  // of integers
  After after = After::kNothing;
};
const Reduction kReductions[] = {
    {"ReduceSum", kernels::Reduce::kSum, WholeReduce::kSum},
    {"ReduceMean", kernels::Reduce::kMean, WholeReduce::kMean},
    {"ReduceMax", kernels::Reduce::kMax, WholeReduce::kMax},
    {"ReduceMin", kernels::Reduce::kMin, WholeReduce::kMin},
    {"ReduceProd", kernels::Reduce::kProduct, WholeReduce::kProduct},
    {"ReduceL1", kernels::Reduce::kSumAbs, WholeReduce::kSumAbs},
    {"ReduceL2", kernels::Reduce::kSumSquares, {}, After::kRoot},
    {"ReduceLogSum", kernels::Reduce::kSum, {}, After::kLog},
    {"ReduceSumSquare", kernels::Reduce::kSumSquares, WholeReduce::kSumSquares},
};

/// io: x, y.
void run_reduce(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::ReduceParams*>(params);
  p.x = at<float>(io, 0);
  p.y = at<float>(io, 1);
  launch_rows(context, Kernel::reduce_rows, p.kept.n, p);
}

std::array<bool, Shape::kMaxRank> reduced_axes(const NodeContext& c) {
  const bool by_input = c.version() >= (c.node().op_type == "ReduceSum" ? 13 : 18);
  const size_t rank = c.input(0).shape.rank();
  std::vector<int64_t> axes;
  if (!by_input) axes = c.attr_ints("axes");
  if (by_input && c.has_input(1)) axes = c.const_ints(1);
  std::array<bool, Shape::kMaxRank> out{};
  const bool all = axes.empty() && !(by_input && c.attr_int("noop_with_empty_axes", 0) != 0);
  for (size_t i = 0; i < rank; ++i) out[i] = all;
  for (const int64_t axis : axes) out[static_cast<size_t>(c.resolve_axis(axis, static_cast<int64_t>(rank)))] = true;
  return out;
}

const Reduction& reduction_of(const NodeContext& c) {
  return *std::ranges::find(kReductions, c.node().op_type, &Reduction::name);
}

Cost reduce_cost(const NodeContext& c) {
  if (const Cost cost = number_cost(c); !cost.possible()) return cost;
  if (is_whole(c.input(0).dtype)) {
    const auto whole = reduction_of(c).whole;
    if (!whole) return Cost::cannot("it takes roots and logarithms of float32 alone");
    if (*whole == WholeReduce::kMean && c.input(0).dtype == DType::kI64) {
      return Cost::cannot("the sum of int64 that it divides may need more than 64 bits");
    }
  }
  const auto gone = reduced_axes(c);
  const Shape& x = c.input(0).shape;
  int64_t count = 1;
  for (size_t i = 0; i < x.rank(); ++i) count *= gone[i] ? x[i] : 1;
  return count > 0 ? Cost(0) : Cost::cannot("nothing is reduced");
}

/// Of one element, as on the CPU.
bool keeps_one_element(const device::ReduceParams& p) {
  return p.after == After::kNothing && p.op != kernels::Reduce::kSumAbs && p.op != kernels::Reduce::kSumSquares;
}

void lower_reduce(LowerContext& c) {
  const auto gone = reduced_axes(c);
  const Shape& x = c.input(0).shape;
  const Strides own = x.strides();
  Shape kept, reduced;
  Strides kept_strides{}, reduced_strides{};
  for (size_t i = 0; i < x.rank(); ++i) {
    Shape& shape = gone[i] ? reduced : kept;
    (gone[i] ? reduced_strides : kept_strides)[shape.rank()] = own[i];
    shape.push_back(x[i]);
  }
  const Reduction& row = reduction_of(c);
  device::ReduceParams p{};
  p.kept = nest_of(make_nest<1>(kept, {kept_strides}));
  p.reduced = nest_of(make_nest<1>(reduced, {reduced_strides}));
  p.op = row.op;
  p.after = row.after;
  if (reduced.elements() == 1 && keeps_one_element(p)) return c.alias(0, 0);
  if (is_whole(c.input(0).dtype)) return lower_whole(c, *row.whole, p.kept, p.reduced);
  c.step(run_reduce, p, {c.in(0), c.out(0)});
}

}  // namespace
}  // namespace cuda

void register_cuda_rows(OpRegistry& r) {
  using namespace cuda;
  constexpr Precision kF32 = Precision::kFloat32;
  add(r, kOnnx, "Softmax", lower_softmax, nullptr, kF32);
  add(r, kOnnx, "LogSoftmax", lower_softmax, nullptr, kF32);
  add(r, kOnnx, "LayerNormalization", lower_norm, norm_cost, kF32);
  add(r, kInternal, "LayerNorm", lower_norm, norm_cost, kF32);
  add(r, kOnnx, "RMSNormalization", lower_norm, norm_cost, kF32);
  add(r, kOnnx, "InstanceNormalization", lower_groups, nullptr, kF32);
  add(r, kOnnx, "GroupNormalization", lower_groups, nullptr, kF32);
  for (const Reduction& row : kReductions) add(r, kOnnx, row.name, lower_reduce, reduce_cost);
}

}  // namespace inferkit
