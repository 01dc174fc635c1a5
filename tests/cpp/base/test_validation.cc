#include <cmath>
#include <string>

#include "base/error.h"
#include "base/validation.h"
#include "test.h"

using namespace inferkit;

namespace {
std::string last;

Reason reason_of(auto&& call) {
  try {
    call();
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kValidation);
    last = error.what();
    return error.reason();
  }
  return Reason::kNone;
}
bool says(const char* text) { return last.find(text) != std::string::npos; }

Reason check(const Shape& spec, const Shape& given, PortChecks checks = {}, BatchAxis axis = BatchAxis::kPresent) {
  return reason_of([&] { check_input("x", DType::kF32, spec, DType::kF32, given, checks, axis); });
}
}  // namespace

TEST(validation_axis_by_rank) {
  CHECK(batch_axis_of("x", {-1, 4}, {3, 4}) == BatchAxis::kPresent);
  CHECK(batch_axis_of("x", {-1, 4}, {4}) == BatchAxis::kAbsent);
  CHECK(batch_axis_of("x", {-1}, {}) == BatchAxis::kAbsent);
  CHECK(reason_of([] { batch_axis_of("x", {-1, 4}, {1, 1, 4}); }) == Reason::kShape);
  CHECK(says("'x'") && says("(1, 1, 4)") && says("(None, 4)") && says("(4,)"));
}

TEST(validation_dtype) {
  CHECK(reason_of([] { check_input("x", DType::kF32, {-1}, DType::kF64, {1}, {}); }) == Reason::kDtype);
  CHECK(says("float64") && says("float32") && says("astype"));
}

TEST(validation_shape) {
  CHECK(check({-1, 4}, {3, 4}) == Reason::kNone);
  CHECK(check({-1, 4}, {3, 5}) == Reason::kShape);
  CHECK(check({-1, 4}, {3, 0}) == Reason::kShape);
  CHECK(check({-1, 4}, {4}) == Reason::kShape);
  CHECK(check({-1, 4}, {4}, {}, BatchAxis::kAbsent) == Reason::kNone);
  CHECK(check({-1, 4}, {5}, {}, BatchAxis::kAbsent) == Reason::kShape);
  CHECK(check({}, {}) == Reason::kNone);
}

TEST(validation_a_row_is_not_all_that_a_fixed_first_dimension_asks_for) {
  CHECK(check({1, 4}, {4}, {}, BatchAxis::kAbsent) == Reason::kNone);
  for (const int64_t rows : {0, 2, 8}) {
    CHECK(check({rows, 4}, {4}, {}, BatchAxis::kAbsent) == Reason::kShape);
    CHECK(says("has shape (4,); expected (") && says(", 4): the model fixes its first dimension at"));
  }
  CHECK(check({16}, {}, {}, BatchAxis::kAbsent) == Reason::kShape);
  CHECK(check({8, -1}, {4}, {}, BatchAxis::kAbsent) == Reason::kShape);
  CHECK(says("expected (8, None) (None is any length): the model"));
  CHECK(reason_of([] { batch_axis_of("x", {8, 4}, {1, 8, 4}); }) == Reason::kShape);
  CHECK(!says("single row") && !says("None"));
}

TEST(validation_empty) {
  CHECK(check({-1, 4}, {0, 4}) == Reason::kEmpty);
  CHECK(says("input_checks={'x': InputChecks(non_empty=False)}"));
  CHECK(check({-1, 4}, {0, 4}, {.empty_axes = kAllAxes}) == Reason::kNone);
  CHECK(check({-1, -1}, {2, 0}) == Reason::kEmpty);
  CHECK(check({-1, -1, -1}, {2, 0, 3}, {.empty_axes = 0b010}) == Reason::kNone);
  CHECK(check({-1, -1, -1}, {2, 3, 0}, {.empty_axes = 0b010}) == Reason::kEmpty);
  CHECK(check({-1, -1, -1}, {0, 3}, {.empty_axes = 0b010}, BatchAxis::kAbsent) == Reason::kNone);
  CHECK(check({-1, -1, -1}, {3, 0}, {.empty_axes = 0b010}, BatchAxis::kAbsent) == Reason::kEmpty);
}

TEST(validation_length_bounds_leave_the_batch_alone) {
  const PortChecks bounds{.min_length = 2, .max_length = 5};
  CHECK(check({-1, -1}, {1, 2}, bounds) == Reason::kNone);
  CHECK(check({-1, -1}, {9, 5}, bounds) == Reason::kNone);
  CHECK(check({-1, -1}, {1, 1}, bounds) == Reason::kShape);
  CHECK(says("min_length"));
  CHECK(check({-1, -1}, {1, 6}, bounds) == Reason::kTooLarge);
  CHECK(says("max_length"));
  CHECK(check({-1, -1}, {6}, bounds, BatchAxis::kAbsent) == Reason::kTooLarge);
  CHECK(check({-1, 7}, {1, 7}, bounds) == Reason::kNone);
}

TEST(validation_values) {
  float a[4] = {1, 2, INFINITY, 4}, out[4];
  const StridedView v = StridedView::contiguous({DType::kF32, {2, 2}, a});
  CHECK(reason_of([&] { copy_input("x", v, out, {}); }) == Reason::kNonFinite);
  CHECK(says("(1, 0)"));
  CHECK(reason_of([&] { scan_input("x", v, {}); }) == Reason::kNonFinite);
  CHECK(says("input_checks={'x': InputChecks(finite=False)}"));
  CHECK(reason_of([&] { copy_input("x", v, out, {.allowed = NonFinite::kAll}); }) == Reason::kNone);
  CHECK_EQ(out[2], INFINITY);
}

TEST(validation_lets_through_what_is_allowed_alone) {
  const auto scan = [](float value, NonFinite allowed) {
    float a[3] = {1, value, 4}, out[3];
    const StridedView v = StridedView::contiguous({DType::kF32, {3}, a});
    const Reason reason = reason_of([&] { scan_input("x", v, {.allowed = allowed}); });
    CHECK(reason == reason_of([&] { copy_input("x", v, out, {.allowed = allowed}); }));
    return reason;
  };
  CHECK(scan(NAN, NonFinite::kNan) == Reason::kNone);
  CHECK(scan(INFINITY, NonFinite::kNan) == Reason::kNonFinite);
  CHECK(says("holds infinity at index (1,)") && says("NaN for missing ones"));
  CHECK(scan(-INFINITY, NonFinite::kNan) == Reason::kNonFinite);
  CHECK(scan(-INFINITY, NonFinite::kMinusInfinity) == Reason::kNone);
  CHECK(scan(INFINITY, NonFinite::kMinusInfinity) == Reason::kNonFinite);
  CHECK(says("NaN or plus infinity at index (1,)"));
  CHECK(scan(NAN, NonFinite::kMinusInfinity) == Reason::kNonFinite);
}

TEST(validation_checks_are_what_is_asked_and_else_what_the_model_says) {
  const InputSense sense{NonFinite::kNan, 0b010};
  CHECK((resolve({}, {}) == PortChecks{}));
  CHECK((resolve({.max_length = 7}, sense) == PortChecks{NonFinite::kNan, 0b010, 0, 7}));
  CHECK((resolve({CheckMode::kOn, CheckMode::kByModel}, sense) == PortChecks{NonFinite::kNone, 0b010}));
  CHECK((resolve({CheckMode::kByModel, CheckMode::kOn}, sense) == PortChecks{NonFinite::kNan, 0}));
  CHECK((resolve({CheckMode::kOff, CheckMode::kOff}, sense) == PortChecks{NonFinite::kAll, kAllAxes}));
}
