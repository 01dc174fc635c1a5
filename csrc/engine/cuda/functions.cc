// Functions of one float: activations, exponentials, roots.
#include "engine/cuda/functions.h"

#include <limits>
#include <optional>
#include <span>

#include "engine/cuda/integers.h"
#include "engine/cuda/launch.h"
#include "graph/passes/pattern.h"

namespace inferkit {
namespace cuda {
namespace {

using kernels::Unary;

struct Attribute {
  const char* name = nullptr;
  float value = 0;  // where the node does not have it
};
struct Row {
  std::string_view domain, name;
  Unary op;
  Attribute alpha = {}, beta = {};
  std::optional<device::WholeUnary> whole = {};  // of integers
};

const Row kRows[] = {
    {kOnnx, "Relu", Unary::kRelu, {}, {}, device::WholeUnary::kRelu},
    {kOnnx, "LeakyRelu", Unary::kLeakyRelu, {"alpha", 0.01f}},
    {kOnnx, "Sigmoid", Unary::kSigmoid},
    {kOnnx, "Tanh", Unary::kTanh},
    {kOnnx, "Gelu", Unary::kGelu},
    {kInternal, "Gelu", Unary::kGelu},
    {kInternal, "Silu", Unary::kSilu, {nullptr, 1}},
    {kOnnx, "Swish", Unary::kSilu, {"alpha", 1}},
    {kOnnx, "HardSwish", Unary::kHardSwish},
    {kOnnx, "HardSigmoid", Unary::kHardSigmoid, {"alpha", 0.2f}, {"beta", 0.5f}},
    {kOnnx, "Elu", Unary::kElu, {"alpha", 1}},
    {kOnnx, "Selu", Unary::kSelu, {"alpha", 1.67326319217681884765625f}, {"gamma", 1.05070102214813232421875f}},
    {kOnnx, "Celu", Unary::kCelu, {"alpha", 1}},
    {kOnnx, "Softplus", Unary::kSoftplus},
    {kOnnx, "Softsign", Unary::kSoftsign},
    {kOnnx, "Mish", Unary::kMish},
    {kOnnx, "ThresholdedRelu", Unary::kThresholdedRelu, {"alpha", 1}},
    {kOnnx, "Exp", Unary::kExp},
    {kOnnx, "Log", Unary::kLog},
    {kOnnx, "Erf", Unary::kErf},
    {kOnnx, "Sin", Unary::kSin},
    {kOnnx, "Cos", Unary::kCos},
    {kOnnx, "Abs", Unary::kAbs, {}, {}, device::WholeUnary::kAbs},
    {kOnnx, "Neg", Unary::kNeg, {}, {}, device::WholeUnary::kNeg},
    {kOnnx, "Sign", Unary::kSign, {}, {}, device::WholeUnary::kSign},
    {kOnnx, "Sqrt", Unary::kSqrt},
    {kOnnx, "Reciprocal", Unary::kReciprocal},
    {kOnnx, "Floor", Unary::kFloor},
    {kOnnx, "Ceil", Unary::kCeil},
    {kOnnx, "Round", Unary::kRound},
};

/// Those that are computed in double, by a kernel of their own. No product has them as its activation.
const Row kElementary[] = {
    {kOnnx, "Tan", Unary::kTan},     {kOnnx, "Atan", Unary::kAtan},   {kOnnx, "Asin", Unary::kAsin},
    {kOnnx, "Acos", Unary::kAcos},   {kOnnx, "Sinh", Unary::kSinh},   {kOnnx, "Cosh", Unary::kCosh},
    {kOnnx, "Asinh", Unary::kAsinh}, {kOnnx, "Acosh", Unary::kAcosh}, {kOnnx, "Atanh", Unary::kAtanh},
};

const Row& row_of(const NodeContext& c, std::span<const Row> rows = kRows) {
  for (const Row& row : rows) {
    if (row.name == c.node().op_type && row.domain == c.node().domain) return row;
  }
  c.unsupported("no such function");
}
Function function_of(const NodeContext& c) {
  const auto value = [&](const Attribute& a) { return a.name ? c.attr_float(a.name, a.value) : a.value; };
  const Row& row = row_of(c);
  Function out{row.op, value(row.alpha), value(row.beta)};
  if (row.name == "Gelu" && c.attr_string("approximate", "none") == "tanh") out.op = Unary::kGeluTanh;
  return out;
}

struct Params {
  int64_t n;
  Function f;
};

/// io: x, y.
void run_function(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& [n, f] = *static_cast<const Params*>(params);
  launch_fours(context, Kernel::unary_f32, n,
               device::UnaryParams{at<float>(io, 0), at<float>(io, 1), n, f.alpha, f.beta, f.op});
}

Cost function_cost(const NodeContext& c) {
  if (c.has_attr(kKeepsTail)) return Cost::cannot("it stands for a function of a half type");
  return Cost(0);
}

void lower_as(LowerContext& c, const Function& f) {
  c.in_place(0, 0);
  c.step(run_function, Params{c.output(0).shape.elements(), f}, {c.in(0), c.out(0)});
}
void lower_function(LowerContext& c) { lower_as(c, function_of(c)); }

/// io: x, y.
void run_elementary(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& [n, f] = *static_cast<const Params*>(params);
  launch_elements(context, Kernel::elementary_f32, n,
                  device::UnaryParams{at<float>(io, 0), at<float>(io, 1), n, 0, 0, f.op});
}
void lower_elementary(LowerContext& c) {
  c.in_place(0, 0);
  c.step(run_elementary, Params{c.output(0).shape.elements(), {row_of(c, kElementary).op, 0, 0}}, {c.in(0), c.out(0)});
}

/// Those that take integers, too.
Cost either_cost(const NodeContext& c) {
  const Cost cost = function_cost(c);
  return cost.possible() ? number_cost(c) : cost;
}
void lower_either(LowerContext& c) {
  if (is_whole(c.input(0).dtype)) return lower_whole(c, *row_of(c).whole);
  lower_function(c);
}

// ---- Clip -----------------------------------------------------------------------------------------------------------

/// Whether the bounds are numbers that are known when the model is compiled.
bool bounds_are_known(const NodeContext& c) {
  for (size_t i = 1; i < 3; ++i) {
    if (!c.has_input(i)) continue;
    if (!c.input(i).constant) return false;
    if (const float bound = *c.input(i).constant->as<float>(); bound != bound) return false;
  }
  return true;
}

/// io: x, low, high, y; the bounds may be null.
void run_bounds(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::BoundsParams*>(params);
  p.x = io[0];
  p.low = io[1];
  p.high = io[2];
  p.y = io[3];
  launch_elements(context, Kernel::cut_to_bounds, p.n, p);
}

void lower_clip(LowerContext& c) {
  if (is_whole(c.input(0).dtype) || !bounds_are_known(c)) {
    c.in_place(0, 0);
    device::BoundsParams p{};
    p.n = c.output(0).shape.elements();
    p.type = element_of(c, c.input(0).dtype);
    c.step(run_bounds, p, {c.in(0), c.in(1), c.in(2), c.out(0)});
    return;
  }
  const bool old = c.version() < 11;
  const auto bound = [&](size_t i, const char* name, float most, float none) {
    if (old) return c.attr_float(name, most);
    return c.has_input(i) ? *c.known_value(i).as<float>() : none;
  };
  constexpr float kMost = std::numeric_limits<float>::max(), kInf = std::numeric_limits<float>::infinity();
  lower_as(c, {Unary::kClip, bound(1, "min", -kMost, -kInf), bound(2, "max", kMost, kInf)});
}

// ---- Pow ------------------------------------------------------------------------------------------------------------

/// A constant that is one number, of any of the types that the device has.
std::optional<double> exponent_of(const NodeContext& c) {
  const TensorFacts& e = c.input(1);
  if (!e.constant || e.shape.elements() != 1 || c.input(0).shape != c.output(0).shape) return std::nullopt;
  if (e.dtype == DType::kF32) return static_cast<double>(*e.constant->as<float>());
  if (e.dtype == DType::kI32) return static_cast<double>(*e.constant->as<int32_t>());
  if (e.dtype == DType::kI64) return static_cast<double>(*e.constant->as<int64_t>());
  return std::nullopt;
}
Cost pow_cost(const NodeContext& c) {
  if (c.input(1).dtype == DType::kF32 || exponent_of(c)) return Cost(0);
  return Cost::cannot("the exponents are neither float32 nor one constant integer");
}

/// io: x, e, y.
void run_power(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::PowerParams*>(params);
  p.x = at<float>(io, 0);
  p.e = at<float>(io, 1);
  p.y = at<float>(io, 2);
  launch_elements(context, Kernel::power_f32, p.nest.n, p);
}
void lower_pow(LowerContext& c) {
  const std::optional<double> exponent = exponent_of(c);
  if (exponent == 2) return lower_as(c, {Unary::kSquare});
  if (c.input(0).shape == c.output(0).shape) c.in_place(0, 0);
  device::PowerParams p{};
  p.nest = broadcast_nest<2>(c);
  p.exponent = exponent.value_or(0);
  c.step(run_power, p, {c.in(0), exponent ? Ref{} : c.in(1), c.out(0)});
}

}  // namespace

std::optional<Function> find_function(const std::string& name, float alpha, float beta) {
  Function out{Unary::kIdentity, alpha, beta};
  if (name.empty()) return out;
  if (name == "Clip" || name == "GeluTanh") {
    out.op = name == "Clip" ? Unary::kClip : Unary::kGeluTanh;
    return out;
  }
  for (const Row& row : kRows) {
    if (row.name != name) continue;
    out.op = row.op;
    if (row.op == Unary::kSilu) out.alpha = 1;
    return out;
  }
  return std::nullopt;
}
std::optional<Function> fused_function(const NodeContext& c) {
  return find_function(c.attr_string("activation", ""), c.attr_float("activation_alpha", 0),
                       c.attr_float("activation_beta", 0));
}

}  // namespace cuda

void register_cuda_functions(OpRegistry& r) {
  using namespace cuda;
  for (const Row& row : kRows) {
    if (row.whole) {
      add_light(r, row.domain, row.name, lower_either, either_cost);
    } else {
      add_light(r, row.domain, row.name, lower_function, function_cost, Precision::kFloat32);
    }
  }
  for (const Row& row : kElementary) add_light(r, row.domain, row.name, lower_elementary, nullptr, Precision::kFloat32);
  add_light(r, kOnnx, "Clip", lower_clip, number_cost);
  add_light(r, kOnnx, "Pow", lower_pow, pow_cost, Precision::kFloat32);
}

}  // namespace inferkit
