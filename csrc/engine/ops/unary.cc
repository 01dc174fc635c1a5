// Functions of one float, elementwise. float32 and the half types run the vector kernels (the C library in double where
// there is none), float64 the C library. What integers can do too is in unary_any.cc.
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

/// A row per operator: the kernel's number, or a function where the kernels have none.
struct Row {
  std::string_view domain, name;
  int since = 1;
  Unary kernel = Unary::kIdentity;
  UnaryFn f32 = nullptr;
  DoubleFn f64 = nullptr;
  Attr alpha, beta;
  double nanos = 0.1;  // per element of float32
};

using F = double (*)(double x, double alpha, double beta);

template <F f>
void map_f64(const double* x, double* y, int64_t n, double alpha, double beta) {
  for (int64_t i = 0; i < n; ++i) y[i] = f(x[i], alpha, beta);
}
template <F f>
void map_f32(const float* x, float* y, int64_t n, float alpha, float beta) {
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<float>(f(x[i], alpha, beta));
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
#define INFERKIT_BOTH(expression)                                                \
  .f32 = map_f32<[](double x, double, double) -> double { return expression; }>, \
  .f64 = map_f64<[](double x, double, double) -> double { return expression; }>, .alpha = {}, .beta = {}, .nanos = 10

// clang-format off
const Row kRows[] = {
    {kOnnx, "LeakyRelu", 6, Unary::kLeakyRelu, nullptr, INFERKIT_F64(x < 0 ? a * x : x), {"alpha", 0.01f}, {}},
    {kOnnx, "Sigmoid", 6, Unary::kSigmoid, nullptr, INFERKIT_F64(sigmoid(x)), {}, {}, 0.4},
    {kOnnx, "Tanh", 6, Unary::kTanh, nullptr, INFERKIT_F64(std::tanh(x)), {}, {}, 0.4},
    {kOnnx, "Gelu", 20, Unary::kGelu, nullptr, INFERKIT_F64(x / 2 * std::erfc(-x / std::numbers::sqrt2)), {}, {}, 0.6},
    {kInternal, "Gelu", 1, Unary::kGelu, nullptr, INFERKIT_F64(x / 2 * std::erfc(-x / std::numbers::sqrt2)), {}, {}, 0.6},
    {kInternal, "Silu", 1, Unary::kSilu, nullptr, INFERKIT_F64(x * sigmoid(x)), {nullptr, 1}, {}, 0.5},
    {kOnnx, "Swish", 24, Unary::kSilu, nullptr, INFERKIT_F64(x * sigmoid(a * x)), {"alpha", 1}, {}, 0.5},
    {kOnnx, "HardSwish", 14, Unary::kHardSwish, nullptr, INFERKIT_F64(x * hard_sigmoid(x, 1.0 / 6, 0.5)), {}, {}},
    {kOnnx, "HardSigmoid", 6, Unary::kHardSigmoid, nullptr, INFERKIT_F64(hard_sigmoid(x, a, b)), {"alpha", 0.2f}, {"beta", 0.5f}},
    {kOnnx, "Elu", 6, Unary::kElu, nullptr, INFERKIT_F64(elu(x, a)), {"alpha", 1}, {}, 0.4},
    {kOnnx, "Selu", 6, Unary::kSelu, nullptr, INFERKIT_F64(b * elu(x, a)), {"alpha", 1.67326319217681884765625f}, {"gamma", 1.05070102214813232421875f}, 0.4},
    {kOnnx, "Celu", 12, Unary::kCelu, nullptr, INFERKIT_F64(x < 0 ? a * std::expm1(x / a) : x), {"alpha", 1}, {}, 0.4},
    {kOnnx, "Softplus", 1, Unary::kSoftplus, nullptr, INFERKIT_F64(softplus(x)), {}, {}, 0.6},
    {kOnnx, "Softsign", 1, Unary::kSoftsign, nullptr, INFERKIT_F64(softsign(x)), {}, {}},
    {kOnnx, "Mish", 18, Unary::kMish, nullptr, INFERKIT_F64(x * std::tanh(softplus(x))), {}, {}, 1},
    {kOnnx, "ThresholdedRelu", 10, Unary::kThresholdedRelu, nullptr, INFERKIT_F64(a < x ? x : 0), {"alpha", 1}, {}},
    {kOnnx, "Exp", 6, Unary::kExp, nullptr, INFERKIT_F64(std::exp(x)), {}, {}, 0.3},
    {kOnnx, "Log", 6, Unary::kLog, nullptr, INFERKIT_F64(std::log(x)), {}, {}, 0.3},
    {kOnnx, "Erf", 9, Unary::kErf, nullptr, INFERKIT_F64(std::erf(x)), {}, {}, 0.5},
    {kOnnx, "Sqrt", 6, Unary::kSqrt, nullptr, INFERKIT_F64(std::sqrt(x)), {}, {}},
    {kOnnx, "Reciprocal", 6, Unary::kReciprocal, nullptr, INFERKIT_F64(1 / x), {}, {}},
    {kOnnx, "Floor", 6, Unary::kFloor, nullptr, INFERKIT_F64(std::floor(x)), {}, {}},
    {kOnnx, "Ceil", 6, Unary::kCeil, nullptr, INFERKIT_F64(std::ceil(x)), {}, {}},
    {kOnnx, "Round", 11, Unary::kRound, nullptr, INFERKIT_F64(std::nearbyint(x)), {}, {}},
    {kOnnx, "Sin", 7, Unary::kSin, nullptr, INFERKIT_F64(std::sin(x)), {}, {}, 10},
    {kOnnx, "Cos", 7, Unary::kCos, nullptr, INFERKIT_F64(std::cos(x)), {}, {}, 10},
    {.domain = kOnnx, .name = "Tan", .since = 7, INFERKIT_BOTH(std::tan(x))},
    {.domain = kOnnx, .name = "Asin", .since = 7, INFERKIT_BOTH(std::asin(x))},
    {.domain = kOnnx, .name = "Acos", .since = 7, INFERKIT_BOTH(std::acos(x))},
    {.domain = kOnnx, .name = "Atan", .since = 7, INFERKIT_BOTH(std::atan(x))},
    {.domain = kOnnx, .name = "Sinh", .since = 9, INFERKIT_BOTH(std::sinh(x))},
    {.domain = kOnnx, .name = "Cosh", .since = 9, INFERKIT_BOTH(std::cosh(x))},
    {.domain = kOnnx, .name = "Asinh", .since = 9, INFERKIT_BOTH(std::asinh(x))},
    {.domain = kOnnx, .name = "Acosh", .since = 9, INFERKIT_BOTH(std::acosh(x))},
    {.domain = kOnnx, .name = "Atanh", .since = 9, INFERKIT_BOTH(std::atanh(x))},
};
// clang-format on
const Row kGeluTanh = {kOnnx, "Gelu", 20, Unary::kGeluTanh, nullptr, INFERKIT_F64(gelu_tanh(x)), {}, {}, 0.6};
#undef INFERKIT_BOTH
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
  UnaryFn fn = row.f32 ? row.f32 : kernels::unary_fn(row.kernel);
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
