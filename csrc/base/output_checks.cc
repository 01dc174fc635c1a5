#include "base/output_checks.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/scan.h"

namespace inferkit {
namespace {

Status bad(Reason reason, std::string message) { return {ErrorCode::kOutput, reason, std::move(message), nullptr}; }

bool fits(const Shape& spec, const Shape& shape) {
  if (spec.rank() != shape.rank()) return false;
  for (size_t i = 0; i < spec.rank(); ++i) {
    if (spec[i] != Shape::kFree && spec[i] != shape[i]) return false;
  }
  return true;
}

float widen(Half h) { return to_float(h); }
float widen(BFloat16 b) { return to_float(b); }
template <class T>
T widen(T value) {
  return value;
}

bool all_zero(const TensorView& t) {
  if (t.dtype == DType::kString) return false;
  const auto* bytes = static_cast<const unsigned char*>(t.data);
  if (!is_float(t.dtype)) return std::all_of(bytes, bytes + t.bytes(), [](unsigned char b) { return b == 0; });
  // A float is zero, of either sign, where no bit but the sign's is set.
  const size_t size = dtype_size(t.dtype);
  for (size_t i = 0, n = t.bytes(); i < n; ++i) {
    const bool top = i % size == size - 1;  // little endian
    if (top ? bytes[i] & 0x7f : bytes[i]) return false;
  }
  return true;
}

/// A row along the last axis that is no distribution: one of its values is negative, or their sum is not 1.
struct Unnormalized {
  int64_t row;
  bool negative;
  double found;  // the negative value, or the sum
};

/// The first of them.
template <class T>
std::optional<Unnormalized> first_unnormalized(const TensorView& t, double tolerance) {
  const int64_t width = t.shape.empty() ? 1 : t.shape.back();
  const int64_t rows = width ? t.shape.elements() / width : 0;
  const T* at = t.as<T>();
  for (int64_t r = 0; r < rows; ++r, at += width) {
    double sum = 0, least = 0;
    for (int64_t i = 0; i < width; ++i) {
      const double value = widen(at[i]);
      sum += value;
      least = std::min(least, value);
    }
    if (least < -tolerance) return Unnormalized{r, true, least};
    if (!(std::abs(sum - 1.0) <= tolerance)) return Unnormalized{r, false, sum};
  }
  return std::nullopt;
}

std::optional<Unnormalized> first_unnormalized(const TensorView& t, double tolerance) {
  switch (t.dtype) {
    case DType::kF32:
      return first_unnormalized<float>(t, tolerance);
    case DType::kF64:
      return first_unnormalized<double>(t, tolerance);
    case DType::kF16:
      return first_unnormalized<Half>(t, tolerance);
    case DType::kBF16:
      return first_unnormalized<BFloat16>(t, tolerance);
    default:
      return std::nullopt;
  }
}

}  // namespace

Status check_output(std::string_view name, DType spec_dtype, const Shape& spec, const TensorView& output,
                    const OutputChecks& checks) {
  if (checks.shape && (output.dtype != spec_dtype || !fits(spec, output.shape))) {
    return bad(Reason::kShape, cat("output '", name, "' is ", dtype_name(output.dtype), " ", output.shape.str(),
                                   "; the model declares ", dtype_name(spec_dtype), " ", spec.str()));
  }
  if (checks.finite && !all_finite(output)) {
    const auto index = first_non_finite(StridedView::contiguous(output));
    return bad(
        Reason::kNonFinite,
        cat("output '", name, "' holds NaN or infinity at index ", index.value_or(Shape{}).str(),
            "; expected finite values, unless you give the batcher ", "output_checks=OutputChecks(finite=False)"));
  }
  if (checks.not_all_zero && all_zero(output)) {
    return bad(Reason::kAllZero, cat("output '", name, "' is all zero: the model may not have its weights"));
  }
  if (checks.normalized) {
    if (const auto found = first_unnormalized(output, checks.tolerance)) {
      return bad(
          Reason::kNotNormalized,
          cat("row ", found->row, " of output '", name, "', along its last axis, ",
              found->negative ? "holds " : "sums to ", found->found, "; expected ",
              found->negative ? "no negative value" : "1", " within ", checks.tolerance,
              ", as OutputChecks(normalized=True) asks: have the model end in a Softmax, or leave the check out"));
    }
  }
  return {};
}

}  // namespace inferkit
