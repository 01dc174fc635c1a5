// NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss, summed in double in one order.
#include <cmath>
#include <limits>

#include "engine/compile/op_registry.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/indices.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

enum class Reduction : uint8_t { kNone, kMean, kSum };

struct LossParams {
  int64_t batch, classes, inner;
  bool softmax, has_ignored;
  int64_t ignored;
  Reduction reduction;
};

/// log(sum(exp)) over the classes of one place.
template <class T>
double log_sum(const LossParams& p, const T* x) {
  double top = -std::numeric_limits<double>::infinity(), sum = 0;
  for (int64_t k = 0; k < p.classes; ++k) top = std::max(top, static_cast<double>(load(x[k * p.inner])));
  for (int64_t k = 0; k < p.classes; ++k) sum += std::exp(static_cast<double>(load(x[k * p.inner])) - top);
  return top + std::log(sum);
}

/// io: loss, log probabilities (or null), scores, targets, weights (or null).
template <class T, class I>
void loss_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const LossParams*>(params);
  auto* loss = reinterpret_cast<T*>(io[0]);
  auto* log_prob = reinterpret_cast<T*>(io[1]);
  const auto* weights = reinterpret_cast<const T*>(io[4]);
  double sum = 0, total = 0;
  WorkMeter meter;
  for (int64_t i = 0; i < p.batch * p.inner && meter.go_on(10 * p.classes); ++i) {
    const int64_t at = i / p.inner * p.classes * p.inner + i % p.inner;
    const T* x = reinterpret_cast<const T*>(io[2]) + at;
    const double shift = p.softmax ? log_sum(p, x) : 0;
    for (int64_t k = 0; log_prob && k < p.classes; ++k) {
      log_prob[at + k * p.inner] = store<T>(static_cast<Compute<T>>(static_cast<double>(load(x[k * p.inner])) - shift));
    }
    const auto target = static_cast<int64_t>(reinterpret_cast<const I*>(io[3])[i]);
    double weight = 0, value = 0;
    if (!p.has_ignored || target != p.ignored) {
      if (target < 0 || target >= p.classes) throw_index(target, p.classes);
      weight = weights ? static_cast<double>(load(weights[target])) : 1;
      value = weight * (shift - static_cast<double>(load(x[target * p.inner])));
    }
    sum += value;
    total += weight;
    if (loss && p.reduction == Reduction::kNone) loss[i] = store<T>(static_cast<Compute<T>>(value));
  }
  if (!loss || p.reduction == Reduction::kNone) return;
  *loss = store<T>(static_cast<Compute<T>>(p.reduction == Reduction::kMean ? sum / total : sum));
}

Reduction reduction_of(const NodeContext& c) {
  const std::string reduction = c.attr_string("reduction", "mean");
  if (reduction != "none" && reduction != "mean" && reduction != "sum") {
    c.unsupported(cat("reduction '", reduction, "'"));
  }
  return reduction == "none" ? Reduction::kNone : reduction == "mean" ? Reduction::kMean : Reduction::kSum;
}

LossParams read_params(const NodeContext& c) {
  LossParams p{};
  p.reduction = reduction_of(c);
  const Shape &x = c.input(0).shape, &target = c.input(1).shape;
  if (x.rank() < 2) c.fail(cat("expected [batch, classes, ...], got ", x.str()));
  Shape places = x;
  places.erase(1);
  if (places != target) c.fail(cat("targets of shape ", target.str(), " for scores of shape ", x.str()));
  p.batch = x[0];
  p.classes = x[1];
  p.inner = x.elements(2, x.rank());
  p.softmax = c.node().op_type == "SoftmaxCrossEntropyLoss";
  p.has_ignored = c.has_attr("ignore_index");
  p.ignored = c.attr_int("ignore_index", 0);
  if (c.has_input(2) && c.input(2).shape != Shape{p.classes}) c.fail(cat("weights of ", c.input(2).shape.str()));
  return p;
}

void infer_loss(InferContext& c) {
  require_type(c, 0, kFloatTypes);
  require_indices(c, 1);
  if (c.has_input(2)) require_same_type(c, 0, 2);
  const LossParams p = read_params(c);
  c.set_output(0, c.input(0).dtype, p.reduction == Reduction::kNone ? c.input(1).shape : Shape{});
  if (c.has_output(1)) c.set_output(1, c.input(0).dtype, c.input(0).shape);
}

void lower_loss(LowerContext& c) {
  const StepFn fn = dispatch<kFloatTypes>(c.input(0).dtype, [&]<class T>() -> StepFn {
    return dispatch<kIndexTypes>(c.input(1).dtype, []<class I>() -> StepFn { return loss_step<T, I>; });
  });
  c.step(fn, read_params(c),
         {c.out(0), c.has_output(1) ? c.out(1) : Ref{}, c.in(0), c.in(1), c.has_input(2) ? c.in(2) : Ref{}},
         static_cast<double>(c.input(0).shape.elements()) * 15);
}

}  // namespace

void register_loss(OpRegistry& r) {
  OpSchema row{.since = 12, .min_inputs = 2, .max_inputs = 3, .max_outputs = 1, .infer = infer_loss};
  row.mixed_axes = [](const NodeContext&, size_t i) { return i == 0 ? one_axis(1) : Axes{0}; };  // the classes
  row.name = "NegativeLogLikelihoodLoss";
  r.add(row, lower_loss);
  row.name = "SoftmaxCrossEntropyLoss";
  row.max_outputs = 2;
  r.add(row, lower_loss);
}

}  // namespace inferkit
