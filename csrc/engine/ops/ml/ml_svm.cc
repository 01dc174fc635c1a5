// Support vector machines: SVMClassifier, SVMRegressor, with linear, polynomial, RBF and sigmoid kernels.
#include <algorithm>
#include <numeric>

#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/common/packed_panels.h"
#include "engine/ops/ml/ml_common.h"
#include "kernels/cpu/gemm/gemm.h"
#include "kernels/cpu/vmath/vmath.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

using namespace ml;

enum class Kernel : uint8_t { kLinear, kPoly, kRbf, kSigmoid };

struct KernelParams {
  int64_t rows, features, count;
  Kernel kernel;
  float gamma, coef0, degree;
};

KernelParams kernel_of(const NodeContext& c) {
  static constexpr std::string_view kNames[] = {"LINEAR", "POLY", "RBF", "SIGMOID"};
  const std::string name = c.attr_string("kernel_type", "LINEAR");
  const auto at = std::find(std::begin(kNames), std::end(kNames), name);
  if (at == std::end(kNames)) c.fail(cat("kernel_type '", name, "' is none of LINEAR, POLY, RBF, SIGMOID"));
  std::vector<float> params = c.attr_floats("kernel_params");
  if (!params.empty() && params.size() != 3)
    c.fail(cat("kernel_params has ", counted(params.size(), "element"), ", not 3"));
  params.resize(3, 0.0f);
  return {0, 0, 0, static_cast<Kernel>(at - std::begin(kNames)), params[0], params[1], params[2]};
}

/// y[v] = |x - vector v|^2, feature by feature for a strip of vectors at a time, in chunks of features.
void squared_distances(const float* x, const float* vectors, int64_t features, int64_t count, float* y) {
  constexpr int64_t kStrip = 64;
  const int64_t chunk = kernels::sum_chunk(features);
  for (int64_t begin = 0; begin < count; begin += kStrip) {
    const int64_t n = std::min(kStrip, count - begin);
    for (int64_t first = 0; first < features; first += chunk) {
      float sums[kStrip] = {};
      for (int64_t f = first; f < std::min(features, first + chunk); ++f) {
        const float* row = vectors + f * count + begin;
        for (int64_t i = 0; i < n; ++i) {
          const float d = x[f] - row[i];
          sums[i] += d * d;
        }
      }
      if (first == 0) {
        std::copy_n(sums, n, y + begin);
      } else {
        for (int64_t i = 0; i < n; ++i) y[begin + i] += sums[i];
      }
    }
  }
}

/// io: [rows, count] out, x, vectors: in panels for GEMM, for RBF transposed to [features, count].
void kernel_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const KernelParams*>(params);
  auto* out = reinterpret_cast<float*>(io[0]);
  const auto* x = reinterpret_cast<const float*>(io[1]);
  const auto* vectors = reinterpret_cast<const float*>(io[2]);
  WorkMeter meter;
  const auto all = [&](auto&& f) { for_blocks(meter, 0, p.rows * p.count, 2, f); };
  if (p.kernel == Kernel::kRbf) {
    for (int64_t r = 0; r < p.rows && meter.go_on(p.features * p.count / 4); ++r) {
      float* row = out + r * p.count;
      squared_distances(x + r * p.features, vectors, p.features, p.count, row);
      for (int64_t i = 0; i < p.count; ++i) row[i] *= -p.gamma;
    }
    return all([&](int64_t first, int64_t last) {
      kernels::unary_fn(kernels::Unary::kExp)(out + first, out + first, last - first, 0, 0);
    });
  }
  kernels::GemmArgs args;
  args.m = p.rows;
  args.n = p.count;
  args.k = p.features;
  args.a = x;
  args.lda = p.features;
  kernels::use_packed_b(args, vectors);
  args.c = out;
  args.ldc = p.count;
  kernels::gemm_f32_parallel(args, context.pool, context.max_threads);
  if (p.kernel == Kernel::kLinear) return;
  all([&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) out[i] = p.gamma * out[i] + p.coef0;
    if (p.kernel == Kernel::kSigmoid) {
      kernels::unary_fn(kernels::Unary::kTanh)(out + first, out + first, last - first, 0, 0);
    } else {
      kernels::vmath_kernels().power_of_one(out + first, static_cast<double>(p.degree), out + first, last - first);
    }
  });
}

/// As kernel_step reads them.
Ref packed_vectors(LowerContext& c, const Tensor& rows, const KernelParams& p) {
  if (p.kernel != Kernel::kRbf) {
    return packed_panels(c, rows, {.k = p.features, .n = p.count, .transposed = true});
  }
  const Packing packing{cat("transposed ", p.count, "x", p.features), DType::kF32, p.count * p.features, {}};
  return c.packed({&rows}, packing, [&](void* to) {
    auto* columns = static_cast<float*>(to);
    for (int64_t i = 0; i < p.count; ++i) {
      const float* row = rows.as<float>() + i * p.features;
      for (int64_t f = 0; f < p.features; ++f) columns[f * p.count + i] = row[f];
    }
  });
}

/// Everything that the nodes say, checked against the input.
struct Machine {
  KernelParams kernel;
  bool linear = false;                       // no support vectors: coefficients are compared with x directly
  FloatList vectors = std::vector<float>();  // that rows are compared with, a row of features each
  FloatList coefficients = std::vector<float>();
  std::vector<float> rho, prob_a, prob_b;
  std::vector<int64_t> per_class;
  Labels labels;
  PostTransform transform = PostTransform::kNone;
};

/// What the attributes say of the kernel; fit_input says the rest.
void set_vectors(const NodeContext& c, Machine& m, int64_t supports, int64_t linear_rows) {
  m.kernel = kernel_of(c);
  m.linear = supports == 0;
  if (m.linear) m.kernel.kernel = Kernel::kLinear;
  m.kernel.count = m.linear ? linear_rows : supports;
  if (const auto* given = attribute<FloatList>(c, "coefficients")) m.coefficients = *given;
  m.rho = c.attr_floats("rho");
  const char* name = m.linear ? "coefficients" : "support_vectors";
  if (const auto* given = attribute<FloatList>(c, name)) m.vectors = *given;
  const auto length = static_cast<int64_t>(m.vectors.size());
  if (length == 0 || length % m.kernel.count != 0) {
    c.fail(cat(name, " has ", counted(length, "element"), " for ", counted(m.kernel.count, "vector")));
  }
  if (m.rho.empty()) c.fail("has no rho");
  m.kernel.features = length / m.kernel.count;
}

void fit_input(const NodeContext& c, Machine& m) {
  require_type(c, 0, kMlTypes);
  const Rows x = rows_of(c);
  if (x.columns != m.kernel.features) {
    c.fail(cat("has vectors of ", counted(m.kernel.features, "feature"), ", and an input of ", x.columns));
  }
  m.kernel.rows = x.rows;
}

/// The kernel's values [rows, count] in `out`.
void lower_kernel(LowerContext& c, const Machine& m, Ref out) {
  const Ref vectors = packed_vectors(c, m.vectors.tensor, m.kernel);
  const Ref x = float_input(c, 0);
  const KernelParams& p = m.kernel;
  const double flops =
      2.0 * static_cast<double>(p.rows) * static_cast<double>(p.count) * static_cast<double>(p.features);
  c.step(kernel_step, p, {out, x, vectors}, flops / (p.kernel == Kernel::kRbf ? 8 : 30));
}

// --- regression

Machine regressor_of(const NodeContext& c) {
  Machine m;
  const int64_t supports = c.attr_int("n_supports", 0);
  if (supports < 0) c.fail(cat("n_supports is ", supports));
  set_vectors(c, m, supports, 1);
  if (!m.linear && static_cast<int64_t>(m.coefficients.size()) != supports) {
    c.fail(cat("has ", counted(m.coefficients.size(), "coefficient"), " for ", counted(supports, "support vector")));
  }
  if (post_transform_of(c) != PostTransform::kNone) {
    c.unsupported("a post_transform, which ONNX Runtime ignores; export with NONE and apply it outside");
  }
  fit_input(c, m);
  return m;
}

void infer_regressor(InferContext& c) {
  const Machine m = regressor_of(c);
  c.set_output(0, DType::kF32, {m.kernel.rows, 1});
}

struct RegressorParams {
  int64_t rows, count;
  bool linear, one_class;
  float rho;
};

/// io: out, kernel values, coefficients.
void regressor_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const RegressorParams*>(params);
  auto* out = reinterpret_cast<float*>(io[0]);
  const auto* values = reinterpret_cast<const float*>(io[1]);
  const auto* coefficients = reinterpret_cast<const float*>(io[2]);
  WorkMeter meter;
  for (int64_t r = 0; r < p.rows && meter.go_on(p.count); ++r) {
    const float* row = values + r * p.count;
    double sum = p.linear ? static_cast<double>(row[0]) : 0;
    for (int64_t i = 0; !p.linear && i < p.count; ++i) {
      sum += static_cast<double>(row[i]) * static_cast<double>(coefficients[i]);
    }
    const auto y = static_cast<float>(sum + static_cast<double>(p.rho));
    out[r] = !p.one_class ? y : y > 0 ? 1.0f : -1.0f;
  }
}

void lower_regressor(LowerContext& c) {
  const Machine m = regressor_of(c);
  const KernelParams& k = m.kernel;
  const Ref values = c.scratch(room_for({k.rows, k.count}, sizeof(float)));
  lower_kernel(c, m, values);
  const Tensor& coefficients = m.coefficients.tensor;
  c.step(regressor_step, RegressorParams{k.rows, k.count, m.linear, c.attr_int("one_class", 0) != 0, m.rho[0]},
         {c.out(0), values, c.constant(coefficients.data, coefficients.owner, coefficients.bytes())},
         multiplied(k.rows, k.count));
}

// --- classification

Machine classifier_of(const NodeContext& c) {
  Machine m;
  m.labels = labels_of(c, "classlabels_ints", "classlabels_strings");
  m.per_class = c.attr_ints("vectors_per_class");
  m.prob_a = c.attr_floats("prob_a");
  m.prob_b = c.attr_floats("prob_b");
  m.transform = post_transform_of(c);
  const auto classes = static_cast<int64_t>(m.labels.values.size());
  if (classes < 2) c.unsupported(cat("a classifier with ", counted(classes, "class label")));
  constexpr int64_t kMostClasses = int64_t{1} << 31;  // the number of pairs is a number
  if (classes > kMostClasses) c.unsupported(cat("a classifier with ", classes, " class labels"));
  int64_t supports = 0;
  for (int64_t n : m.per_class) {
    if (n < 0 || __builtin_add_overflow(supports, n, &supports)) c.fail(cat("vectors_per_class holds ", n));
  }
  set_vectors(c, m, supports, classes);
  if (m.linear) {
    if (classes == 2 && m.transform != PostTransform::kNone) c.unsupported("a post_transform of a linear binary SVM");
    fit_input(c, m);
    return m;
  }
  const int64_t pairs = classes * (classes - 1) / 2;
  const auto at_least = [&](std::string_view name, size_t length, int64_t need) {
    if (static_cast<int64_t>(length) < need)
      c.fail(cat(name, " has ", counted(length, "element"), ", and needs ", need));
  };
  if (static_cast<int64_t>(m.per_class.size()) != classes) {
    c.fail(cat("vectors_per_class has ", counted(m.per_class.size(), "element"), " for ", classes, " classes"));
  }
  at_least("coefficients", m.coefficients.size(), (classes - 1) * supports);
  at_least("rho", m.rho.size(), pairs);
  if (m.prob_a.size() != m.prob_b.size()) c.fail("prob_a and prob_b differ in length");
  if (!m.prob_a.empty()) at_least("prob_a", m.prob_a.size(), pairs);
  if (m.prob_a.empty() && classes == 2) check_single_score(c, m.transform, /*two_classes=*/true);
  fit_input(c, m);
  return m;
}

/// Columns of the scores: classes, or pairs of classes where there are no probabilities.
int64_t score_columns(const Machine& m) {
  const auto classes = static_cast<int64_t>(m.labels.values.size());
  return m.linear || !m.prob_a.empty() || classes == 2 ? classes : classes * (classes - 1) / 2;
}

void infer_classifier(InferContext& c) {
  const Machine m = classifier_of(c);
  c.set_output(0, m.labels.dtype, {m.kernel.rows});
  if (c.has_output(1)) c.set_output(1, DType::kF32, {m.kernel.rows, score_columns(m)});
}

/// One decision value for each pair of classes i < j, summed in double; votes for the winner of each.
void decide_pairs(const Machine& m, const float* kernel, float* decisions, int64_t* votes) {
  const auto classes = m.labels.values.size();
  const auto supports = static_cast<size_t>(m.kernel.count);
  std::fill_n(votes, classes, 0);
  const auto dot = [&](size_t row, size_t begin, int64_t n, double sum) {
    const float* coefficients = m.coefficients.values().data() + row * supports + begin;
    for (int64_t k = 0; k < n; ++k) {
      sum += static_cast<double>(coefficients[k] * kernel[begin + static_cast<size_t>(k)]);
    }
    return sum;
  };
  size_t pair = 0, start_i = 0;
  for (size_t i = 0; i + 1 < classes; ++i) {
    size_t start_j = start_i + static_cast<size_t>(m.per_class[i]);
    for (size_t j = i + 1; j < classes; ++j, ++pair) {
      double sum = dot(j - 1, start_i, m.per_class[i], 0);
      sum = dot(i, start_j, m.per_class[j], sum) + static_cast<double>(m.rho[pair]);
      decisions[pair] = static_cast<float>(sum);
      ++votes[sum > 0 ? i : j];
      start_j += static_cast<size_t>(m.per_class[j]);
    }
    start_i += static_cast<size_t>(m.per_class[i]);
  }
}

/// Pairwise probabilities to class probabilities: the fixed-point iteration of Wu, Lin and Weng (2004), with libsvm's
/// stopping rule. `r` is [n, n]; `q` and `qp` are scratch of n * n and n.
void couple_probabilities(int64_t n, const float* r, float* q, float* qp, float* p) {
  constexpr int kMaxRounds = 100;
  const float epsilon = 0.005f / static_cast<float>(n);
  std::fill_n(q, n * n, 0.0f);
  for (int64_t i = 0; i < n; ++i) {
    p[i] = 1.0f / static_cast<float>(n);
    for (int64_t j = 0; j < n; ++j) {
      if (i == j) continue;
      q[i * n + i] += r[j * n + i] * r[j * n + i];
      q[i * n + j] = j < i ? q[j * n + i] : -r[j * n + i] * r[i * n + j];
    }
  }
  for (int round = 0; round < kMaxRounds; ++round) {
    float pqp = 0;
    for (int64_t i = 0; i < n; ++i) {
      qp[i] = 0;
      for (int64_t j = 0; j < n; ++j) qp[i] += q[i * n + j] * p[j];
      pqp += p[i] * qp[i];
    }
    float error = 0;
    for (int64_t i = 0; i < n; ++i) error = std::max(error, std::fabs(qp[i] - pqp));
    if (error < epsilon) break;
    for (int64_t i = 0; i < n; ++i) {
      const float diff = (pqp - qp[i]) / q[i * n + i];
      p[i] += diff;
      pqp = (pqp + diff * (diff * q[i * n + i] + 2 * qp[i])) / (1 + diff) / (1 + diff);
      for (int64_t j = 0; j < n; ++j) {
        qp[j] = (qp[j] + diff * q[i * n + j]) / (1 + diff);
        p[j] /= 1 + diff;
      }
    }
  }
}

struct ClassifierParams {
  int64_t rows, scratch_floats;
};

void write_probabilities(const Machine& m, const float* decisions, float* scratch, float* out) {
  const auto n = static_cast<int64_t>(m.labels.values.size());
  float *r = scratch, *q = r + n * n, *qp = q + n * n;
  size_t pair = 0;
  for (int64_t i = 0; i < n; ++i) {
    r[i * n + i] = 0;
    for (int64_t j = i + 1; j < n; ++j, ++pair) {
      const float score = -(decisions[pair] * m.prob_a[pair] + m.prob_b[pair]);
      float value = 0;
      logistic_row(&score, &value, 1);
      value = std::clamp(value, 1e-7f, 1 - 1e-7f);
      r[i * n + j] = value;
      r[j * n + i] = 1 - value;
    }
  }
  couple_probabilities(n, r, q, qp, out);
}

/// io: labels or null, scores or null, kernel values, machine, scratch floats, scratch votes.
void classifier_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const ClassifierParams*>(params);
  auto* labels = reinterpret_cast<int64_t*>(io[0]);
  auto* out = reinterpret_cast<float*>(io[1]);
  const auto& m = *reinterpret_cast<const Machine*>(io[3]);
  auto* scratch = reinterpret_cast<float*>(io[4]);
  auto* votes = reinterpret_cast<int64_t*>(io[5]);
  const auto classes = static_cast<int64_t>(m.labels.values.size());
  const int64_t columns = score_columns(m), pairs = classes * (classes - 1) / 2;
  WorkMeter meter;
  for (int64_t r = 0; r < p.rows && meter.go_on(m.kernel.count * classes); ++r) {
    const float* kernel = reinterpret_cast<const float*>(io[2]) + r * m.kernel.count;
    decide_pairs(m, kernel, scratch, votes);
    if (labels) labels[r] = m.labels.values[static_cast<size_t>(argmax(votes, classes))];
    if (!out) continue;
    float* row = out + r * columns;
    if (m.prob_a.empty() && classes == 2) {
      write_two_classes(m.transform, SecondClass::kNegated, scratch[0], row);
      continue;
    }
    if (m.prob_a.empty()) {
      std::copy_n(scratch, pairs, row);
    } else {
      write_probabilities(m, scratch, scratch + pairs, row);
    }
    transform_row(m.transform, row, columns);
  }
}

/// Without support vectors: io as above.
void linear_classifier_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const ClassifierParams*>(params);
  auto* labels = reinterpret_cast<int64_t*>(io[0]);
  auto* out = reinterpret_cast<float*>(io[1]);
  auto* values = reinterpret_cast<float*>(io[2]);
  const auto& m = *reinterpret_cast<const Machine*>(io[3]);
  const auto classes = static_cast<int64_t>(m.labels.values.size());
  const bool all_positive = std::ranges::all_of(m.coefficients.values(), [](float v) { return v >= 0; });
  WorkMeter meter;
  for (int64_t r = 0; r < p.rows && meter.go_on(4 * classes); ++r) {
    float* row = values + r * classes;
    for (int64_t i = 0; i < classes; ++i) row[i] += m.rho[0];
    if (labels) {
      // Two classes: a score above the threshold speaks for the second, whichever it is (ONNX Runtime's rule).
      int64_t best = argmax(row, classes);
      if (classes == 2 && (all_positive ? row[best] >= 0.5f : row[best] > 0)) best = 1;
      labels[r] = m.labels.values[static_cast<size_t>(best)];
    }
    if (!out) continue;
    std::copy_n(row, classes, out + r * classes);
    transform_row(m.transform, out + r * classes, classes);
  }
}

void lower_classifier(LowerContext& c) {
  const auto m = std::make_shared<const Machine>(classifier_of(c));
  const KernelParams& k = m->kernel;
  const auto classes = static_cast<int64_t>(m->labels.values.size());
  const Ref values = c.scratch(room_for({k.rows, k.count}, sizeof(float)));
  lower_kernel(c, *m, values);
  // For each pair there is a number in the file, so that its square is no more than the file's size.
  const int64_t pairs = m->linear ? 0 : classes * (classes - 1) / 2;
  const int64_t floats = pairs + (m->linear || m->prob_a.empty() ? 0 : 2 * classes * classes + classes);
  const Ref labels = label_room(c, m->labels, k.rows);
  c.step(m->linear ? linear_classifier_step : classifier_step, ClassifierParams{k.rows, floats},
         {labels, c.output_count() > 1 ? c.out(1) : Ref{}, values, c.constant(m.get(), m),
          c.scratch(static_cast<size_t>(floats) * sizeof(float)),
          c.scratch(static_cast<size_t>(classes) * sizeof(int64_t))},
         multiplied(k.rows, classes, k.count + classes));
  name_labels(c, m->labels, labels, k.rows);
}

}  // namespace

void register_ml_svm(OpRegistry& r) {
  r.add({.domain = kOnnxMl,
         .name = "SVMRegressor",
         .min_inputs = 1,
         .max_inputs = 1,
         .max_outputs = 1,
         .infer = infer_regressor},
        lower_regressor);
  r.add({.domain = kOnnxMl,
         .name = "SVMClassifier",
         .min_inputs = 1,
         .max_inputs = 1,
         .max_outputs = 2,
         .infer = infer_classifier},
        lower_classifier);
}

}  // namespace inferkit
