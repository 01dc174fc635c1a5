// What the ai.onnx.ml families share: rows, class labels, post transforms, tables made once per node.
#pragma once
#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "engine/compile/lower.h"
#include "engine/ops/common/text_table.h"
#include "engine/ops/dispatch.h"
#include "kernels/cpu/row/row.h"
#include "kernels/cpu/vmath/vmath.h"
#include "kernels/summation.h"
#include "platform/run_control.h"

namespace inferkit::ml {

inline constexpr TypeSet kMlTypes = types(DType::kF32, DType::kF64, DType::kI32, DType::kI64);

/// [rows, columns] of an input of one (a single row) or two dimensions.
struct Rows {
  int64_t rows = 0, columns = 0;
};
inline Rows rows_of(const NodeContext& c, size_t i = 0) {
  const Shape& shape = c.input(i).shape;
  if (shape.rank() == 1) return {1, shape[0]};
  if (shape.rank() != 2) c.fail(cat("input ", i, " of shape ", shape.str(), " must have one or two dimensions"));
  return {shape[0], shape[1]};
}

/// What `make` returns, made once per model and node; `bytes` is about its size. It may depend on the node's attributes
/// and on the type of its first input, on nothing else: where it fails, it does so for any sizes.
template <class T, class Make>
std::shared_ptr<const T> per_node(LowerContext& c, size_t bytes, const Make& make) {
  const auto made = [&]() -> std::shared_ptr<const T> {
    try {
      return std::make_shared<const T>(make());
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kModel) throw;
      throw WrongNode(error.what());
    }
  };
  const uint64_t id = c.node().id;
  if (id == 0) return made();  // no model keeps the node
  return std::static_pointer_cast<const T>(c.cache().get({{id}, "node", c.input(0).dtype, {}}, made, bytes));
}

/// An attribute's value without a copy; nullptr where it is absent or of another type.
template <class T>
const T* attribute(const NodeContext& c, std::string_view name) {
  const auto it = c.node().attributes.find(name);
  return it == c.node().attributes.end() ? nullptr : std::get_if<T>(&it->second);
}

template <class T>
void cast_to_float_step(const void* params, std::byte* const* io, const ExecContext&) {
  const int64_t count = *static_cast<const int64_t*>(params);
  const auto* x = reinterpret_cast<const T*>(io[1]);
  auto* y = reinterpret_cast<float*>(io[0]);
  in_blocks(count, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) y[i] = static_cast<float>(load<T>(x[i]));
  });
}

/// Input `i` as float32: itself, or a copy that a step makes.
inline Ref float_input(LowerContext& c, size_t i) {
  const TensorFacts& x = c.input(i);
  if (x.dtype == DType::kF32) return c.in(i);
  const int64_t count = x.shape.elements();
  const Ref out = c.scratch(static_cast<size_t>(count) * sizeof(float));
  const StepFn fn = dispatch<kMlTypes>(x.dtype, []<class T>() -> StepFn { return cast_to_float_step<T>; });
  c.step(fn, count, {out, c.in(i)}, static_cast<double>(count));
  return out;
}

/// The class labels of a classifier. Its steps write int64: of strings the places in `names`, which name_labels turns
/// into the strings.
struct Labels {
  DType dtype = DType::kI64;
  std::vector<int64_t> values;
  std::vector<std::string> names;
};
inline Labels labels_of(const NodeContext& c, std::string_view ints, std::string_view strings) {
  Labels out{DType::kI64, c.attr_ints(ints), text_list(c, strings)};
  if (out.names.empty()) return out;
  if (!out.values.empty()) c.fail(cat("has both ", strings, " and ", ints));
  out.dtype = DType::kString;
  out.values.resize(out.names.size());
  std::iota(out.values.begin(), out.values.end(), int64_t{0});
  return out;
}

/// Where a classifier's steps write `rows` labels: its first output or, of strings, room for their places. Invalid
/// where nobody reads them.
inline Ref label_room(LowerContext& c, const Labels& labels, int64_t rows) {
  const Ref out = c.out(0);
  if (labels.dtype != DType::kString || !out.valid()) return out;
  return c.scratch(static_cast<size_t>(rows) * sizeof(int64_t));
}

/// io: strings out, places, names.
inline void name_step(const void* params, std::byte* const* io, const ExecContext&) {
  const int64_t count = *static_cast<const int64_t*>(params);
  auto* out = reinterpret_cast<std::string_view*>(io[0]);
  const auto* places = reinterpret_cast<const int64_t*>(io[1]);
  const auto* names = reinterpret_cast<const std::string_view*>(io[2]);
  in_blocks(count, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) out[i] = names[places[i]];
  });
}

/// After the steps that wrote to label_room.
inline void name_labels(LowerContext& c, const Labels& labels, Ref room, int64_t rows) {
  if (labels.dtype != DType::kString || !room.valid()) return;
  c.step(name_step, rows, {c.out(0), room, text_constant(c, labels.names)}, static_cast<double>(rows));
}

enum class PostTransform : uint8_t { kNone, kSoftmax, kLogistic, kSoftmaxZero, kProbit };

inline PostTransform post_transform_of(const NodeContext& c) {
  static constexpr std::string_view kNames[] = {"NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"};
  const std::string name = c.attr_string("post_transform", "NONE");
  for (size_t i = 0; i < std::size(kNames); ++i) {
    if (name == kNames[i]) return static_cast<PostTransform>(i);
  }
  c.fail(cat("post_transform '", name, "' is none of NONE, SOFTMAX, LOGISTIC, SOFTMAX_ZERO, PROBIT"));
}

/// The approximation that ONNX Runtime made the convention (Winitzki's, with pi and a as these literals), in double:
/// its differences cancel around 1/2.
inline float probit(float p) {
  constexpr double kPi = 3.14159, kA = 0.147, kSqrt2 = 1.4142135623730951;
  const double x = 2 * static_cast<double>(p) - 1;
  const double log = std::log((1 - x) * (1 + x));
  const double half = 2 / (kPi * kA) + 0.5 * log;
  const double root = std::sqrt(std::sqrt(half * half - log / kA) - half);
  return static_cast<float>(kSqrt2 * (x < 0 ? -root : root));
}
inline void logistic_row(const float* x, float* y, int64_t n) {
  kernels::unary_fn(kernels::Unary::kSigmoid)(x, y, n, 0, 0);
}

/// Softmax over the scores that are not (nearly) zero; those stay at zero, scaled as ONNX Runtime does.
inline void softmax_zero_row(float* row, int64_t n) {
  constexpr float kNearlyZero = 1e-7f;
  const auto exp = [](float v) {
    kernels::unary_fn(kernels::Unary::kExp)(&v, &v, 1, 0, 0);
    return v;
  };
  float max = row[0];
  for (int64_t i = 1; i < n; ++i) max = row[i] > max ? row[i] : max;
  const float zero_scale = exp(-max);
  float sum = 0;
  const int64_t chunk = kernels::sum_chunk(n);
  for (int64_t first = 0; first < n; first += chunk) {
    float part = 0;
    for (int64_t i = first; i < std::min(n, first + chunk); ++i) {
      if (row[i] > kNearlyZero || row[i] < -kNearlyZero) {
        row[i] = exp(row[i] - max);
        part += row[i];
      } else {
        row[i] *= zero_scale;
      }
    }
    sum += part;
  }
  for (int64_t i = 0; i < n; ++i) row[i] /= sum;
}

inline void transform_row(PostTransform transform, float* row, int64_t n) {
  if (n == 0) return;
  switch (transform) {
    case PostTransform::kNone:
      return;
    case PostTransform::kSoftmax:
      return kernels::softmax_row(row, row, n);
    case PostTransform::kLogistic:
      return logistic_row(row, row, n);
    case PostTransform::kSoftmaxZero:
      return softmax_zero_row(row, n);
    case PostTransform::kProbit:
      for (int64_t i = 0; i < n; ++i) row[i] = probit(row[i]);
      return;
  }
}

/// One score that stands for two classes: how the second comes about without a transform.
enum class SecondClass : uint8_t { kComplement /* 1 - s, s */, kNegated /* -s, s */ };
inline void write_two_classes(PostTransform transform, SecondClass second, float score, float* row) {
  row[0] = second == SecondClass::kComplement && transform != PostTransform::kLogistic ? 1 - score : -score;
  row[1] = score;
  if (transform == PostTransform::kLogistic) logistic_row(row, row, 2);
}

/// Transforms of a single score on which the specification and ONNX Runtime contradict each other are refused.
inline void check_single_score(const NodeContext& c, PostTransform transform, bool two_classes) {
  const bool ok = transform == PostTransform::kNone ||
                  transform == (two_classes ? PostTransform::kLogistic : PostTransform::kProbit);
  if (!ok) {
    c.unsupported(cat("post_transform ", c.attr_string("post_transform", "NONE"),
                      " on a single score, which the specification and ONNX Runtime define differently; export with "
                      "NONE and apply it outside"));
  }
}

/// The first of the largest.
template <class T>
int64_t argmax(const T* x, int64_t n) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; ++i) best = x[i] > x[best] ? i : best;
  return best;
}

}  // namespace inferkit::ml
