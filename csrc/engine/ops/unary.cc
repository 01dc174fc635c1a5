// Functions of one float, elementwise. float32 and the half types run the vector kernels, float64 the C library. What
// integers can do too is in unary_any.cc.
#include <cmath>
#include <numbers>

#include "engine/compile/op_registry.h"
#include "engine/ops/common/float_map.h"
#include "engine/ops/common/gelu_half.h"
#include "engine/ops/parallel.h"
#include "graph/passes/pattern.h"

namespace inferkit {
namespace {

using kernels::Unary;
using kernels::UnaryFn;
using DoubleFn = void (*)(const double* x, double* y, int64_t n, double alpha, double beta);

struct Attr {
  const char* name = nullptr;
  float value = 0;  // where the node does not have it
};

/// A row per operator: the number of its kernel, and what float64 runs.
struct Row {
  std::string_view domain, name;
  int since = 1;
  Unary kernel = Unary::kIdentity;
  DoubleFn f64 = nullptr;
  Attr alpha, beta;
  double nanos = 0.1;  // per element of float32
};

using F = double (*)(double x, double alpha, double beta);

template <F f>
void map_f64(const double* x, double* y, int64_t n, double alpha, double beta) {
  for (int64_t i = 0; i < n; ++i) y[i] = f(x[i], alpha, beta);
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double softplus(double x) { return (x > 0 ? x : 0) + std::log1p(std::exp(-std::fabs(x))); }
double hard_sigmoid(double x, double a, double b) {
  const double v = a * x + b;
  return v < 0 ? 0 : v > 1 ? 1 : v;
}
double elu(double x, double a) { return x < 0 ? a * std::expm1(x) : x; }
double gelu_tanh(double x) {
  return x / 2 * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
}
double softsign(double x) { return std::isinf(x) ? std::copysign(1.0, x) : x / (1 + std::fabs(x)); }

#define INFERKIT_F64(expression)                                                                          \
  map_f64<[]([[maybe_unused]] double x, [[maybe_unused]] double a, [[maybe_unused]] double b) -> double { \
    return expression;                                                                                    \
  }>

// clang-format off
const Row kRows[] = {
    {kOnnx, "LeakyRelu", 6, Unary::kLeakyRelu, INFERKIT_F64(x < 0 ? a * x : x), {"alpha", 0.01f}, {}},
    {kOnnx, "Sigmoid", 6, Unary::kSigmoid, INFERKIT_F64(sigmoid(x)), {}, {}, 0.4},
    {kOnnx, "Tanh", 6, Unary::kTanh, INFERKIT_F64(std::tanh(x)), {}, {}, 0.4},
    {kOnnx, "Gelu", 20, Unary::kGelu, INFERKIT_F64(x / 2 * std::erfc(-x / std::numbers::sqrt2)), {}, {}, 0.6},
    {kInternal, "Gelu", 1, Unary::kGelu, INFERKIT_F64(x / 2 * std::erfc(-x / std::numbers::sqrt2)), {}, {}, 0.6},
    {kInternal, "Silu", 1, Unary::kSilu, INFERKIT_F64(x * sigmoid(x)), {nullptr, 1}, {}, 0.5},
    {kOnnx, "Swish", 24, Unary::kSilu, INFERKIT_F64(x * sigmoid(a * x)), {"alpha", 1}, {}, 0.5},
    {kOnnx, "HardSwish", 14, Unary::kHardSwish, INFERKIT_F64(x * hard_sigmoid(x, 1.0 / 6, 0.5)), {}, {}},
    {kOnnx, "HardSigmoid", 6, Unary::kHardSigmoid, INFERKIT_F64(hard_sigmoid(x, a, b)), {"alpha", 0.2f}, {"beta", 0.5f}},
    {kOnnx, "Elu", 6, Unary::kElu, INFERKIT_F64(elu(x, a)), {"alpha", 1}, {}, 0.4},
    {kOnnx, "Selu", 6, Unary::kSelu, INFERKIT_F64(b * elu(x, a)), {"alpha", 1.67326319217681884765625f}, {"gamma", 1.05070102214813232421875f}, 0.4},
    {kOnnx, "Celu", 12, Unary::kCelu, INFERKIT_F64(x < 0 ? a * std::expm1(x / a) : x), {"alpha", 1}, {}, 0.4},
    {kOnnx, "Softplus", 1, Unary::kSoftplus, INFERKIT_F64(softplus(x)), {}, {}, 0.6},
    {kOnnx, "Softsign", 1, Unary::kSoftsign, INFERKIT_F64(softsign(x)), {}, {}},
    {kOnnx, "Mish", 18, Unary::kMish, INFERKIT_F64(x * std::tanh(softplus(x))), {}, {}, 1},
    {kOnnx, "ThresholdedRelu", 10, Unary::kThresholdedRelu, INFERKIT_F64(a < x ? x : 0), {"alpha", 1}, {}},
    {kOnnx, "Exp", 6, Unary::kExp, INFERKIT_F64(std::exp(x)), {}, {}, 0.3},
    {kOnnx, "Log", 6, Unary::kLog, INFERKIT_F64(std::log(x)), {}, {}, 0.3},
    {kOnnx, "Erf", 9, Unary::kErf, INFERKIT_F64(std::erf(x)), {}, {}, 0.5},
    {kOnnx, "Sqrt", 6, Unary::kSqrt, INFERKIT_F64(std::sqrt(x)), {}, {}},
    {kOnnx, "Reciprocal", 6, Unary::kReciprocal, INFERKIT_F64(1 / x), {}, {}},
    {kOnnx, "Floor", 6, Unary::kFloor, INFERKIT_F64(std::floor(x)), {}, {}},
    {kOnnx, "Ceil", 6, Unary::kCeil, INFERKIT_F64(std::ceil(x)), {}, {}},
    {kOnnx, "Round", 11, Unary::kRound, INFERKIT_F64(std::nearbyint(x)), {}, {}},
    {kOnnx, "Sin", 7, Unary::kSin, INFERKIT_F64(std::sin(x)), {}, {}, 10},
    {kOnnx, "Cos", 7, Unary::kCos, INFERKIT_F64(std::cos(x)), {}, {}, 10},
    {kOnnx, "Tan", 7, Unary::kTan, INFERKIT_F64(std::tan(x)), {}, {}, 7},
    {kOnnx, "Asin", 7, Unary::kAsin, INFERKIT_F64(std::asin(x)), {}, {}, 3},
    {kOnnx, "Acos", 7, Unary::kAcos, INFERKIT_F64(std::acos(x)), {}, {}, 3},
    {kOnnx, "Atan", 7, Unary::kAtan, INFERKIT_F64(std::atan(x)), {}, {}, 3},
    {kOnnx, "Sinh", 9, Unary::kSinh, INFERKIT_F64(std::sinh(x)), {}, {}, 3},
    {kOnnx, "Cosh", 9, Unary::kCosh, INFERKIT_F64(std::cosh(x)), {}, {}, 3},
    {kOnnx, "Asinh", 9, Unary::kAsinh, INFERKIT_F64(std::asinh(x)), {}, {}, 3},
    {kOnnx, "Acosh", 9, Unary::kAcosh, INFERKIT_F64(std::acosh(x)), {}, {}, 3},
    {kOnnx, "Atanh", 9, Unary::kAtanh, INFERKIT_F64(std::atanh(x)), {}, {}, 3},
};
// clang-format on
const Row kGeluTanh = {kOnnx, "Gelu", 20, Unary::kGeluTanh, INFERKIT_F64(gelu_tanh(x)), {}, {}, 0.6};
#undef INFERKIT_F64

struct Params {
  DoubleFn fn;
  int64_t n;
  double alpha, beta;
};

void run_f64(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const Params*>(params);
  const auto* x = reinterpret_cast<const double*>(io[0]);
  auto* y = reinterpret_cast<double*>(io[1]);
  for_ranges(context, p.n, 1 << 13,
             [&](int64_t first, int64_t last) { p.fn(x + first, y + first, last - first, p.alpha, p.beta); });
}

const Row& row_of(const NodeContext& c) {
  if (c.node().op_type == "Gelu" && c.node().domain == kOnnx) {
    const std::string approximate = c.attr_string("approximate", "none");
    if (approximate == "tanh") return kGeluTanh;
    if (approximate != "none") c.unsupported("approximate = '" + approximate + "'");
  }
  for (const Row& row : kRows) {
    if (row.name == c.node().op_type && row.domain == c.node().domain) return row;
  }
  c.unsupported("no such function");
}

float attr_of(const LowerContext& c, const Attr& attr) {
  return attr.name ? c.attr_float(attr.name, attr.value) : attr.value;
}

void lower_unary(LowerContext& c) {
  const Row& row = row_of(c);
  const float alpha = attr_of(c, row.alpha), beta = attr_of(c, row.beta);
  UnaryFn fn = kernels::unary_fn(row.kernel);
  if (c.input(0).dtype != DType::kF32 || c.has_attr(kKeepsTail)) {
    if (row.kernel == Unary::kGelu) fn = gelu_half;
    if (row.kernel == Unary::kGeluTanh) fn = gelu_tanh_half;
  }
  if (lower_float_map(c, fn, alpha, beta, row.nanos)) return;
  if (c.input(0).dtype != DType::kF64) c.unsupported(cat("an input of type ", dtype_name(c.input(0).dtype)));
  const int64_t n = c.output(0).shape.elements();
  c.in_place(0, 0);
  c.step(run_f64, Params{row.f64, n, alpha, beta}, {c.in(0), c.out(0)}, static_cast<double>(n) * 10);
}

void infer_unary(InferContext& c) {
  row_of(c);
  c.set_output(0, c.input(0).dtype, c.input(0).shape);
}

}  // namespace

void register_unary(OpRegistry& r) {
  for (const Row& row : kRows) {
    r.add({.domain = row.domain,
           .name = row.name,
           .since = row.since,
           .min_inputs = 1,
           .max_inputs = 1,
           .max_outputs = 1,
           .infer = infer_unary},
          lower_unary);
  }
}

}  // namespace inferkit
