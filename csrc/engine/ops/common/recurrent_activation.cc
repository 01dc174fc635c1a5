#include "engine/ops/common/recurrent_activation.h"

#include <cctype>
#include <cmath>
#include <optional>

#include "base/counted.h"

namespace inferkit {
namespace {

using kernels::Unary;

struct Row {
  std::string_view name;
  Unary op;
  bool takes_alpha, takes_beta;
  std::optional<float> alpha, beta;  // where the node gives none; ONNX Runtime and the
                                     // specification disagree about ThresholdedRelu
};
// Names compare without case, as ONNX Runtime does.
const Row kRows[] = {{"relu", Unary::kRelu, false, false, {}, {}},
                     {"tanh", Unary::kTanh, false, false, {}, {}},
                     {"sigmoid", Unary::kSigmoid, false, false, {}, {}},
                     {"softsign", Unary::kSoftsign, false, false, {}, {}},
                     {"softplus", Unary::kSoftplus, false, false, {}, {}},
                     {"leakyrelu", Unary::kLeakyRelu, true, false, 0.01f, {}},
                     {"thresholdedrelu", Unary::kThresholdedRelu, true, false, {}, {}},
                     {"elu", Unary::kElu, true, false, 1.0f, {}},
                     {"hardsigmoid", Unary::kHardSigmoid, true, true, 0.2f, 0.5f},
                     {"affine", Unary::kIdentity, true, true, 1.0f, 0.0f},
                     {"scaledtanh", Unary::kTanh, true, true, {}, {}}};

RecurrentActivation make(const Row& row, float alpha, float beta) {
  if (row.name == "affine") return {.op = row.op, .post = alpha, .shift = beta};
  if (row.name == "scaledtanh") return {.op = row.op, .pre = beta, .post = alpha};
  return {.op = row.op, .alpha = alpha, .beta = beta};
}

double evaluate(Unary op, double x, double alpha, double beta) {
  switch (op) {
    case Unary::kRelu:
      return x < 0 ? 0 : x;
    case Unary::kTanh:
      return std::tanh(x);
    case Unary::kSigmoid:
      return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x));
    case Unary::kSoftsign:
      return x / (1 + std::fabs(x));
    case Unary::kSoftplus:
      return (x < 0 ? 0 : x) + std::log1p(std::exp(-std::fabs(x)));
    case Unary::kLeakyRelu:
      return x < 0 ? alpha * x : x;
    case Unary::kThresholdedRelu:
      return x > alpha ? x : 0;
    case Unary::kElu:
      return x < 0 ? alpha * std::expm1(x) : x;
    case Unary::kHardSigmoid: {
      const double v = alpha * x + beta;
      return v < 0 ? 0 : v > 1 ? 1 : v;
    }
    default:
      return x;
  }
}

}  // namespace

void RecurrentActivation::apply(float* x, int64_t n) const {
  if (pre != 1) {
    for (int64_t i = 0; i < n; ++i) x[i] *= pre;
  }
  if (op != Unary::kIdentity) kernels::unary_fn(op)(x, x, n, alpha, beta);
  if (post != 1 || shift != 0) {
    for (int64_t i = 0; i < n; ++i) x[i] = post * x[i] + shift;
  }
}

void RecurrentActivation::apply(double* x, int64_t n) const {
  const double a = alpha, b = beta, scale = post, offset = shift;
  for (int64_t i = 0; i < n; ++i) x[i] = scale * evaluate(op, pre * x[i], a, b) + offset;
}

std::vector<RecurrentActivation> recurrent_activations(const NodeContext& c, const std::vector<std::string>& defaults,
                                                       int64_t directions) {
  std::vector<std::string> names = c.attr_strings("activations");
  if (names.empty()) {
    for (int64_t d = 0; d < directions; ++d) names.insert(names.end(), defaults.begin(), defaults.end());
  }
  if (names.size() != defaults.size() * static_cast<size_t>(directions)) {
    c.fail(
        cat(counted(names.size(), "activation"), " for ", counted(directions, "direction"), " of ", defaults.size()));
  }
  const std::vector<float> alphas = c.attr_floats("activation_alpha"), betas = c.attr_floats("activation_beta");
  size_t next_alpha = 0, next_beta = 0;  // each function that takes one consumes the next
  std::vector<RecurrentActivation> out;
  for (const std::string& name : names) {
    std::string lower;
    for (char ch : name) lower += static_cast<char>(std::tolower(static_cast<unsigned char>(ch)));
    const Row* found = nullptr;
    for (const Row& row : kRows) {
      if (row.name == lower) found = &row;
    }
    if (!found) c.unsupported(cat("activation '", name, "'"));
    std::optional<float> alpha = found->alpha, beta = found->beta;
    if (found->takes_alpha && next_alpha < alphas.size()) alpha = alphas[next_alpha++];
    if (found->takes_beta && next_beta < betas.size()) beta = betas[next_beta++];
    if ((found->takes_alpha && !alpha) || (found->takes_beta && !beta)) {
      c.unsupported(cat("activation '", name, "' without its alpha and beta, which have no default"));
    }
    out.push_back(make(*found, alpha.value_or(0), beta.value_or(0)));
  }
  return out;
}

}  // namespace inferkit
