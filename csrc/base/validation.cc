#include "base/validation.h"

#include "base/error.h"

namespace inferkit {
namespace {

[[noreturn]] void fail(Reason reason, const std::string& message) {
  throw Error(ErrorCode::kValidation, reason, message);
}

Shape row_of(const Shape& spec) {
  Shape row = spec;
  row.erase(0);
  return row;
}

[[noreturn]] void fail_shape(std::string_view name, const Shape& spec, const Shape& given, bool row_allowed) {
  std::string expected = spec.str();
  if (row_allowed && !spec.empty()) expected += cat(", or ", row_of(spec).str(), " for a single row");
  fail(Reason::kShape,
       cat("input '", name, "' has shape ", given.str(), "; expected ", expected, " (None is any length)"));
}

[[noreturn]] void fail_finite(std::string_view name, const StridedView& given) {
  const auto index = first_non_finite(given);
  fail(Reason::kNonFinite,
       cat("input '", name, "' holds NaN or infinity", index ? cat(" at index ", index->str()) : std::string(),
           "; expected finite values: clean the input, or allow them with input_checks=InputChecks(finite=False)"));
}

}  // namespace

BatchAxis batch_axis_of(std::string_view name, const Shape& spec, const Shape& given) {
  if (given.rank() == spec.rank()) return BatchAxis::kPresent;
  if (given.rank() + 1 == spec.rank()) return BatchAxis::kAbsent;
  fail_shape(name, spec, given, true);
}

void check_input(std::string_view name, DType spec_dtype, const Shape& spec, DType dtype, const Shape& given,
                 const InputChecks& checks, BatchAxis axis) {
  if (dtype != spec_dtype) {
    fail(Reason::kDtype, cat("input '", name, "' has dtype ", dtype_name(dtype), "; expected ", dtype_name(spec_dtype),
                             ": convert it with .astype('", dtype_name(spec_dtype), "')"));
  }
  const size_t skip = axis == BatchAxis::kAbsent ? 1 : 0;
  if (given.rank() + skip != spec.rank()) fail_shape(name, spec, given, skip != 0);
  for (size_t i = 0; i < given.rank(); ++i) {
    const int64_t want = spec[i + skip], got = given[i];
    if (want != Shape::kFree && got != want) fail_shape(name, spec, given, skip != 0);
  }
  for (size_t i = 0; i < given.rank(); ++i) {
    const int64_t got = given[i];
    const bool batch = i + skip == 0, free = spec[i + skip] == Shape::kFree;
    if (got == 0 && checks.non_empty) {
      fail(Reason::kEmpty,
           cat("input '", name, "' is empty: its shape is ", given.str(), "; every dimension must be at least 1"));
    }
    if (batch || !free) continue;
    if (got < checks.min_length) {
      fail(got == 0 ? Reason::kEmpty : Reason::kShape,
           cat("input '", name, "' has length ", got, " in dimension ", i, " of ", given.str(), "; at least ",
               checks.min_length, " is required (InputChecks.min_length)"));
    }
    if (checks.max_length > 0 && got > checks.max_length) {
      fail(Reason::kTooLarge,
           cat("input '", name, "' has length ", got, " in dimension ", i, " of ", given.str(), "; at most ",
               checks.max_length, " is allowed (InputChecks.max_length): shorten or split it"));
    }
  }
}

void copy_input(std::string_view name, const StridedView& given, void* target, const InputChecks& checks) {
  if (!copy_strided(given, target, checks.finite)) fail_finite(name, given);
}

void scan_input(std::string_view name, const StridedView& given, const InputChecks& checks) {
  if (checks.finite && !all_finite(given)) fail_finite(name, given);
}

}  // namespace inferkit
