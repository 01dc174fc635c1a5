// Arithmetic on two operands, comparisons, Where and Cast, broadcast.
#include "engine/cuda/integers.h"
#include "engine/cuda/launch.h"

namespace inferkit {
namespace cuda {
namespace {

using device::Compare;
using device::Whole;
using kernels::Binary;

// ---- Arithmetic -----------------------------------------------------------------------------------------------------

/// io: a, b, y.
void run_binary(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::BinaryParams*>(params);
  p.a = at<float>(io, 0);
  p.b = at<float>(io, 1);
  p.y = at<float>(io, 2);
  launch_nest(context, Kernel::binary_f32, p);
}

template <Binary op>
void lower_binary(LowerContext& c) {
  for (size_t i = 0; i < 2; ++i) {
    if (c.input(i).shape == c.output(0).shape) c.in_place(0, i);
  }
  device::BinaryParams p{};
  p.nest = broadcast_nest<2>(c);
  p.op = op;
  c.step(run_binary, p, {c.in(0), c.in(1), c.out(0)});
}

template <Binary op, Whole whole>
void lower_arithmetic(LowerContext& c) {
  if (is_whole(c.input(0).dtype)) return lower_whole(c, whole);
  lower_binary<op>(c);
}

Cost two_operands(const NodeContext& c) {
  return c.input_count() == 2 ? Cost(0) : Cost::cannot("it has not two operands");
}
Cost two_numbers(const NodeContext& c) { return c.input_count() == 2 ? number_cost(c) : two_operands(c); }

// ---- Comparisons ----------------------------------------------------------------------------------------------------

/// io: a, b, y.
void run_compare(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::CompareParams*>(params);
  p.a = io[0];
  p.b = io[1];
  p.y = at<bool>(io, 2);
  launch_elements(context, Kernel::compare, p.nest.n, p);
}

Cost compare_cost(const NodeContext& c) {
  Element type{};
  if (!find_element(c.input(0).dtype, type)) return Cost::cannot("it compares float32, int32, int64 and bool alone");
  return Cost(0);
}

template <Compare op>
void lower_compare(LowerContext& c) {
  device::CompareParams p{};
  p.nest = broadcast_nest<2>(c);
  p.type = element_of(c, c.input(0).dtype);
  p.op = op;
  c.step(run_compare, p, {c.in(0), c.in(1), c.out(0)});
}

// ---- IsNaN and IsInf ------------------------------------------------------------------------------------------------

/// io: x, y.
void run_classify(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::ClassifyParams*>(params);
  p.x = at<float>(io, 0);
  p.y = at<bool>(io, 1);
  launch_elements(context, Kernel::classify, p.n, p);
}
void lower_classify(LowerContext& c) {
  device::ClassifyParams p{};
  p.n = c.output(0).shape.elements();
  p.nan = c.node().op_type == "IsNaN";
  p.infinity = !p.nan && c.attr_int("detect_positive", 1) != 0;
  p.minus_infinity = !p.nan && c.attr_int("detect_negative", 1) != 0;
  c.step(run_classify, p, {c.in(0), c.out(0)});
}

// ---- Where ----------------------------------------------------------------------------------------------------------

/// io: condition, a, b, y.
void run_select(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::SelectParams*>(params);
  p.condition = at<bool>(io, 0);
  p.a = io[1];
  p.b = io[2];
  p.y = io[3];
  launch_nest(context, Kernel::select, p);
}

Cost select_cost(const NodeContext& c) {
  return dtype_size(c.input(1).dtype) <= 8 ? Cost(0) : Cost::cannot("its elements have more than 8 bytes");
}
void lower_select(LowerContext& c) {
  device::SelectParams p{};
  p.nest = broadcast_nest<3>(c);
  p.width = static_cast<int32_t>(dtype_size(c.output(0).dtype));
  c.step(run_select, p, {c.in(0), c.in(1), c.in(2), c.out(0)});
}

// ---- Cast -----------------------------------------------------------------------------------------------------------

/// io: x, y.
void run_cast(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::CastParams*>(params);
  p.x = io[0];
  p.y = io[1];
  launch_elements(context, Kernel::cast, p.n, p);
}

Cost cast_cost(const NodeContext& c) {
  Element from{}, to{};
  if (c.input(0).dtype == c.output(0).dtype && dtype_size(c.output(0).dtype) <= 8) return Cost(0);
  if (find_element(c.input(0).dtype, from) && find_element(c.output(0).dtype, to)) return Cost(0);
  return Cost::cannot("it casts between float32, int32, int64 and bool alone");
}
void lower_cast(LowerContext& c) {
  if (c.input(0).dtype == c.output(0).dtype) return c.alias(0, 0);
  device::CastParams p{};
  p.n = c.output(0).shape.elements();
  p.from = element_of(c, c.input(0).dtype);
  p.to = element_of(c, c.output(0).dtype);
  c.step(run_cast, p, {c.in(0), c.out(0)});
}

}  // namespace
}  // namespace cuda

void register_cuda_elementwise(OpRegistry& r) {
  using namespace cuda;
  add_light(r, kOnnx, "Add", lower_arithmetic<Binary::kAdd, Whole::kAdd>, two_numbers);
  add_light(r, kOnnx, "Sub", lower_arithmetic<Binary::kSub, Whole::kSub>, two_numbers);
  add_light(r, kOnnx, "Mul", lower_arithmetic<Binary::kMul, Whole::kMul>, two_numbers);
  add_light(r, kOnnx, "Div", lower_arithmetic<Binary::kDiv, Whole::kDiv>, two_numbers);
  add_light(r, kOnnx, "PRelu", lower_arithmetic<Binary::kPrelu, Whole::kPrelu>, two_numbers);
  add_light(r, kOnnx, "Min", lower_arithmetic<Binary::kMin, Whole::kMin>, two_numbers);
  add_light(r, kOnnx, "Max", lower_arithmetic<Binary::kMax, Whole::kMax>, two_numbers);
  add_light(r, kOnnx, "Sum", lower_binary<Binary::kAdd>, two_operands, Precision::kFloat32);
  add_light(r, kOnnx, "Equal", lower_compare<Compare::kEqual>, compare_cost);
  add_light(r, kOnnx, "Less", lower_compare<Compare::kLess>, compare_cost);
  add_light(r, kOnnx, "LessOrEqual", lower_compare<Compare::kLessOrEqual>, compare_cost);
  add_light(r, kOnnx, "Greater", lower_compare<Compare::kGreater>, compare_cost);
  add_light(r, kOnnx, "GreaterOrEqual", lower_compare<Compare::kGreaterOrEqual>, compare_cost);
  add_light(r, kOnnx, "IsNaN", lower_classify, nullptr, Precision::kFloat32);
  add_light(r, kOnnx, "IsInf", lower_classify, nullptr, Precision::kFloat32);
  add_light(r, kOnnx, "Where", lower_select, select_cost);
  add_light(r, kOnnx, "Cast", lower_cast, cast_cost);
  add_light(r, kOnnx, "CastLike", lower_cast, cast_cost);
}

}  // namespace inferkit
