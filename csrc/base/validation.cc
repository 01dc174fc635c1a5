#include "base/validation.h"

#include "base/error.h"
#include "base/text.h"

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

[[noreturn]] void fail_shape(std::string_view name, const Shape& spec, const Shape& given, bool row_allowed,
                             std::string_view why = {}) {
  std::string expected = spec.str();
  if (row_allowed && !spec.empty()) expected += cat(", or ", row_of(spec).str(), " for a single row");
  fail(Reason::kShape, cat("input '", name, "' has shape ", given.str(), "; expected ", expected,
                           spec.is_concrete() ? "" : " (None is any length)", why));
}

/// Where a check is changed, for a message. A batcher's checks go before those of its model.
std::string switch_of(std::string_view name, std::string_view argument) {
  return cat("give the model or the batcher input_checks={", quote(name), ": InputChecks(", argument, ")}");
}

[[noreturn]] void fail_finite(std::string_view name, std::string_view input, const StridedView& given,
                              NonFinite allowed) {
  const auto index = first_non_finite(given, allowed);
  std::string_view found = "NaN or infinity", expected = "finite values";
  if (allowed == NonFinite::kNan) {
    found = "infinity", expected = "finite values, or NaN for missing ones";
  } else if (allowed == NonFinite::kMinusInfinity) {
    found = "NaN or plus infinity", expected = "finite values, or minus infinity where it masks";
  } else if (allowed == NonFinite::kPlusInfinity) {
    found = "NaN or minus infinity", expected = "finite values, or plus infinity where it masks";
  } else if (allowed == NonFinite::kInfinity) {
    found = "NaN", expected = "finite values, or infinity, which the model asks for";
  }
  fail(Reason::kNonFinite, cat("input '", name, "' holds ", found, index ? cat(" at index ", index->str()) : "",
                               "; expected ", expected, ": clean the input, or ", switch_of(input, "finite=False")));
}

}  // namespace

PortChecks resolve(const InputChecks& asked, const InputSense& sense) {
  PortChecks out{.min_length = asked.min_length, .max_length = asked.max_length};
  if (asked.finite != CheckMode::kOn) {
    out.allowed = asked.finite == CheckMode::kOff ? NonFinite::kAll : sense.non_finite;
  }
  if (asked.non_empty != CheckMode::kOn) {
    out.empty_axes = asked.non_empty == CheckMode::kOff ? kAllAxes : sense.empty_axes;
  }
  return out;
}

bool may_be_one_row(const Shape& spec) { return !spec.empty() && (spec[0] == Shape::kFree || spec[0] == 1); }

BatchAxis batch_axis_of(std::string_view name, const Shape& spec, const Shape& given) {
  if (given.rank() == spec.rank()) return BatchAxis::kPresent;
  if (given.rank() + 1 == spec.rank()) return BatchAxis::kAbsent;
  fail_shape(name, spec, given, may_be_one_row(spec));
}

void check_input(std::string_view name, DType spec_dtype, const Shape& spec, DType dtype, const Shape& given,
                 const PortChecks& checks, BatchAxis axis) {
  if (dtype != spec_dtype) {
    fail(Reason::kDtype, cat("input '", name, "' has dtype ", dtype_name(dtype), "; expected ", dtype_name(spec_dtype),
                             ": convert it with .astype('", dtype_name(spec_dtype), "')"));
  }
  const size_t skip = axis == BatchAxis::kAbsent ? 1 : 0;
  if (skip != 0 && !spec.empty() && !may_be_one_row(spec)) {
    fail_shape(
        name, spec, given, false,
        cat(": the model fixes its first dimension at ", spec[0], ", so it cannot be left out for a single row"));
  }
  if (given.rank() + skip != spec.rank()) fail_shape(name, spec, given, skip != 0);
  for (size_t i = 0; i < given.rank(); ++i) {
    const int64_t want = spec[i + skip], got = given[i];
    if (want != Shape::kFree && got != want) fail_shape(name, spec, given, skip != 0);
  }
  for (size_t i = 0; i < given.rank(); ++i) {
    const int64_t got = given[i];
    const bool batch = i + skip == 0, free = spec[i + skip] == Shape::kFree;
    if (got == 0 && !(checks.empty_axes >> (i + skip) & 1)) {
      fail(Reason::kEmpty,
           cat("input '", name, "' is empty: its shape is ", given.str(),
               "; every dimension must be at least 1, unless you ", switch_of(name, "non_empty=False")));
    }
    if (batch || !free) continue;
    if (got < checks.min_length) {
      fail(got == 0 ? Reason::kEmpty : Reason::kShape,
           cat("input '", name, "' has length ", got, " in dimension ", i, " of ", given.str(), "; at least ",
               checks.min_length, " is required: make it longer, or ", switch_of(name, "min_length=...")));
    }
    if (checks.max_length > 0 && got > checks.max_length) {
      fail(Reason::kTooLarge,
           cat("input '", name, "' has length ", got, " in dimension ", i, " of ", given.str(), "; at most ",
               checks.max_length, " is allowed: shorten or split it, or ", switch_of(name, "max_length=...")));
    }
  }
}

void copy_input(std::string_view name, std::string_view input, const StridedView& given, void* target,
                const PortChecks& checks) {
  if (!copy_strided(given, target, checks.allowed)) fail_finite(name, input, given, checks.allowed);
}

void scan_input(std::string_view name, const StridedView& given, const PortChecks& checks) {
  if (!all_finite(given, checks.allowed)) fail_finite(name, name, given, checks.allowed);
}

}  // namespace inferkit
