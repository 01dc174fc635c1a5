#include <cmath>
#include <vector>

#include "base/output_checks.h"
#include "test.h"

using namespace inferkit;

namespace {
Reason reason_of(const TensorView& output, const OutputChecks& checks, const Shape& spec = {-1, 2}) {
  const Status status = check_output("y", DType::kF32, spec, output, checks);
  CHECK_EQ(status.ok(), status.reason == Reason::kNone);
  if (!status.ok()) {
    CHECK(status.code == ErrorCode::kOutput);
    CHECK(status.message.find("'y'") != std::string::npos);
  }
  return status.reason;
}
}  // namespace

TEST(output_checks_are_optional) {
  const float a[4] = {NAN, 0, -0.0f, 5};
  CHECK(reason_of({DType::kF64, {1}, a}, {}) == Reason::kNone);
  CHECK(!OutputChecks{}.any());
}

TEST(output_finite) {
  float a[4] = {1, 2, 3, 4};
  CHECK(reason_of({DType::kF32, {2, 2}, a}, {.finite = true}) == Reason::kNone);
  a[3] = -INFINITY;
  CHECK(reason_of({DType::kF32, {2, 2}, a}, {.finite = true}) == Reason::kNonFinite);
}

TEST(output_all_zero_of_both_signs_and_every_width) {
  float a[2] = {0.0f, -0.0f};
  CHECK(reason_of({DType::kF32, {1, 2}, a}, {.not_all_zero = true}) == Reason::kAllZero);
  a[1] = 1e-45f;
  CHECK(reason_of({DType::kF32, {1, 2}, a}, {.not_all_zero = true}) == Reason::kNone);
  const double d[2] = {-0.0, -0.0};
  CHECK(reason_of({DType::kF64, {1, 2}, d}, {.not_all_zero = true}) == Reason::kAllZero);
  const int8_t i[2] = {0, -128};  // the sign bit of an integer counts
  CHECK(reason_of({DType::kI8, {1, 2}, i}, {.not_all_zero = true}) == Reason::kNone);
}

TEST(output_shape_lets_free_dimensions_be_anything) {
  const float a[6] = {1, 1, 1, 1, 1, 1};
  CHECK(reason_of({DType::kF32, {3, 2}, a}, {.shape = true}) == Reason::kNone);
  CHECK(reason_of({DType::kF32, {2, 3}, a}, {.shape = true}) == Reason::kShape);
  CHECK(reason_of({DType::kF32, {6}, a}, {.shape = true}) == Reason::kShape);
  CHECK(reason_of({DType::kI32, {3, 2}, a}, {.shape = true}) == Reason::kShape);
}

TEST(output_normalized_row_by_row) {
  const float good[4] = {0.25f, 0.75f, 1.0f, 0.0f};
  CHECK(reason_of({DType::kF32, {2, 2}, good}, {.normalized = true}) == Reason::kNone);
  const float bad[4] = {0.25f, 0.75f, 0.5f, 0.25f};
  CHECK(reason_of({DType::kF32, {2, 2}, bad}, {.normalized = true}) == Reason::kNotNormalized);
  CHECK(reason_of({DType::kF32, {2, 2}, bad}, {.normalized = true, .tolerance = 0.3}) == Reason::kNone);
  const float negative[2] = {1.5f, -0.5f};
  CHECK(reason_of({DType::kF32, {1, 2}, negative}, {.normalized = true}) == Reason::kNotNormalized);
  const float nan[2] = {NAN, 1};
  CHECK(reason_of({DType::kF32, {1, 2}, nan}, {.normalized = true}) == Reason::kNotNormalized);
  const auto said = [](const TensorView& output) {
    return check_output("y", DType::kF32, {-1, 2}, output, {.normalized = true}).message;
  };
  CHECK(
      said({DType::kF32, {2, 2}, bad}).starts_with("row 1 of output 'y', along its last axis, sums to 0.75; expected"));
  CHECK(said({DType::kF32, {1, 2}, negative}).find("holds -0.5; expected no negative value within 0.001") !=
        std::string::npos);
}
