// Linear models: LinearClassifier, LinearRegressor. One GEMM, then what the node asks for row by row.
#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/common/packed_panels.h"
#include "engine/ops/ml/ml_common.h"
#include "kernels/cpu/gemm/gemm.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

using namespace ml;

struct Sizes {
  int64_t rows, features, targets;
};

struct GemmParams {
  Sizes size;
};

void gemm_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const Sizes& size = static_cast<const GemmParams*>(params)->size;
  kernels::GemmArgs args;
  args.m = size.rows;
  args.n = size.targets;
  args.k = size.features;
  args.a = reinterpret_cast<const float*>(io[1]);
  args.lda = size.features;
  kernels::use_packed_b(args, reinterpret_cast<const float*>(io[2]));
  args.bias = reinterpret_cast<const float*>(io[3]);
  args.bias_kind = kernels::BiasKind::kPerColumn;
  args.c = reinterpret_cast<float*>(io[0]);
  args.ldc = size.targets;
  kernels::gemm_f32_parallel(args, context.pool, context.max_threads);
}

/// The number of targets or classes; checks the attributes against the input.
Sizes sizes_of(const NodeContext& c, int64_t targets) {
  const auto* coefficients = attribute<FloatList>(c, "coefficients");
  const auto count = static_cast<int64_t>(coefficients ? coefficients->size() : 0);
  if (targets < 1 || count == 0 || count % targets != 0) {
    c.fail(cat("has ", counted(count, "coefficient"), " for ", counted(targets, "target")));
  }
  require_type(c, 0, kMlTypes);
  const Rows x = rows_of(c);
  if (count / targets != x.columns) {
    c.fail(cat("has ", count, " coefficients for ", targets, " targets and ", counted(x.columns, "feature")));
  }
  return {x.rows, x.columns, targets};
}

/// Scores [rows, targets] into `out`.
void lower_scores(LowerContext& c, const Sizes& size, Ref out) {
  const Ref coefficients = packed_panels(c, attribute<FloatList>(c, "coefficients")->tensor,
                                         {.k = size.features, .n = size.targets, .transposed = true});
  FloatList intercepts = std::vector<float>(static_cast<size_t>(size.targets));
  if (const auto* given = attribute<FloatList>(c, "intercepts"); given && given->size() != 0) intercepts = *given;
  const Ref x = float_input(c, 0);
  const double flops = 2.0 * multiplied(size.rows, size.features, size.targets);
  c.step(gemm_step, GemmParams{size},
         {out, x, coefficients, c.constant(intercepts.tensor.data, intercepts.tensor.owner, intercepts.tensor.bytes())},
         flops / 30);
}

struct TransformParams {
  int64_t rows, targets;
  PostTransform transform;
};

void transform_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const TransformParams*>(params);
  auto* row = reinterpret_cast<float*>(io[0]);
  WorkMeter meter;
  for (int64_t r = 0; r < p.rows && meter.go_on(4 * p.targets); ++r, row += p.targets)
    transform_row(p.transform, row, p.targets);
}

Sizes regressor_sizes(const NodeContext& c) {
  const int64_t targets = c.attr_int("targets", 1);
  const size_t intercepts = c.attr_floats("intercepts").size();
  if (intercepts != 0 && static_cast<int64_t>(intercepts) != targets) {
    c.fail(cat("has ", counted(intercepts, "intercept"), " for ", counted(targets, "target")));
  }
  return sizes_of(c, targets);
}

void infer_regressor(InferContext& c) {
  const Sizes size = regressor_sizes(c);
  const PostTransform transform = post_transform_of(c);
  if (size.targets == 1) check_single_score(c, transform, /*two_classes=*/false);
  c.set_output(0, DType::kF32, {size.rows, size.targets});
}

void lower_regressor(LowerContext& c) {
  const Sizes size = regressor_sizes(c);
  const PostTransform transform = post_transform_of(c);
  lower_scores(c, size, c.out(0));
  if (transform == PostTransform::kNone) return;
  c.step(transform_step, TransformParams{size.rows, size.targets, transform}, {c.out(0)},
         4.0 * multiplied(size.rows, size.targets));
}

struct ClassifierParams {
  int64_t rows, targets;
  PostTransform transform;
};

/// io: labels or null, scores out or null, raw scores (may be the scores out), class labels.
void classifier_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const ClassifierParams*>(params);
  auto* labels = reinterpret_cast<int64_t*>(io[0]);
  auto* out = reinterpret_cast<float*>(io[1]);
  const auto* raw = reinterpret_cast<const float*>(io[2]);
  const auto* classes = reinterpret_cast<const int64_t*>(io[3]);
  WorkMeter meter;
  for (int64_t r = 0; r < p.rows && meter.go_on(4 * p.targets); ++r) {
    const float* row = raw + r * p.targets;
    if (labels) labels[r] = classes[p.targets == 1 ? row[0] > 0 : argmax(row, p.targets)];
    if (!out) continue;
    if (p.targets == 1) {
      write_two_classes(p.transform, SecondClass::kComplement, row[0], out + 2 * r);
    } else {
      transform_row(p.transform, out + r * p.targets, p.targets);
    }
  }
}

struct Classifier {
  Sizes size;
  Labels labels;
  PostTransform transform;
};

Classifier classifier_of(const NodeContext& c) {
  Labels labels = labels_of(c, "classlabels_ints", "classlabels_strings");
  const auto count = static_cast<int64_t>(labels.values.size());
  const auto intercepts = static_cast<int64_t>(c.attr_floats("intercepts").size());
  const int64_t targets = intercepts != 0 ? intercepts : count;
  const PostTransform transform = post_transform_of(c);
  if (count < 2 || (targets != count && !(targets == 1 && count == 2))) {
    c.fail(cat("has ", counted(targets, "row"), " of coefficients for ", count, " class labels"));
  }
  if (targets == 1) check_single_score(c, transform, /*two_classes=*/true);
  return {sizes_of(c, targets), std::move(labels), transform};
}

void infer_classifier(InferContext& c) {
  const Classifier k = classifier_of(c);
  c.set_output(0, k.labels.dtype, {k.size.rows});
  if (c.has_output(1)) c.set_output(1, DType::kF32, {k.size.rows, static_cast<int64_t>(k.labels.values.size())});
}

void lower_classifier(LowerContext& c) {
  const Classifier k = classifier_of(c);
  const Ref labels = label_room(c, k.labels, k.size.rows), scores = c.output_count() > 1 ? c.out(1) : Ref{};
  const auto raw_bytes = static_cast<size_t>(k.size.rows * k.size.targets) * sizeof(float);
  const Ref raw = scores.valid() && k.size.targets > 1 ? scores : c.scratch(raw_bytes);
  lower_scores(c, k.size, raw);
  const auto classes = std::make_shared<const std::vector<int64_t>>(k.labels.values);
  c.step(classifier_step, ClassifierParams{k.size.rows, k.size.targets, k.transform},
         {labels, scores, raw, c.constant(classes->data(), classes)}, 6.0 * multiplied(k.size.rows, k.size.targets));
  name_labels(c, k.labels, labels, k.size.rows);
}

}  // namespace

void register_ml_linear(OpRegistry& r) {
  r.add({.domain = kOnnxMl,
         .name = "LinearRegressor",
         .min_inputs = 1,
         .max_inputs = 1,
         .max_outputs = 1,
         .infer = infer_regressor},
        lower_regressor);
  r.add({.domain = kOnnxMl,
         .name = "LinearClassifier",
         .min_inputs = 1,
         .max_inputs = 1,
         .max_outputs = 2,
         .infer = infer_classifier},
        lower_classifier);
}

}  // namespace inferkit
