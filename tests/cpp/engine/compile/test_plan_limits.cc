#include "engine/compile/plan_limits.h"
#include "test.h"

using namespace inferkit;

namespace {

Node range_node() {
  Node node;
  node.op_type = "Range";
  node.name = "count";
  return node;
}

std::string refusal(const std::function<void()>& action) {
  try {
    action();
  } catch (const PlanTooLarge& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST(plan_limits_refuse_one_value_and_name_its_node) {
  RunBytes bytes(1 << 20);
  bytes.add_value(range_node(), DType::kF32, {1 << 18});
  const std::string why = refusal([&] { bytes.add_value(range_node(), DType::kI64, {3'000'000'000}); });
  CHECK(contains(why, "node 'count' (Range) gives int64 of shape (3000000000"));
  CHECK(contains(why, "22888 MiB"));
  CHECK(contains(why, "at most 1024 KiB"));
  CHECK(contains(why, "max_run_bytes"));
}

TEST(plan_limits_tell_few_bytes_by_the_byte) {
  RunBytes bytes(511);
  const std::string why = refusal([&] { bytes.add_value(range_node(), DType::kF32, {2, 64}); });
  CHECK(contains(why, "(2, 64), 512 bytes; one run may take at most 511 bytes"));
}

TEST(plan_limits_count_what_overflows) {
  for (const Shape& shape : {Shape{int64_t{1} << 61}, Shape{int64_t{1} << 40, int64_t{1} << 40}, Shape{-5}}) {
    RunBytes bytes(size_t{1} << 40);
    CHECK(!refusal([&] { bytes.add_value(range_node(), DType::kF64, shape); }).empty());
  }
}

TEST(plan_limits_refuse_a_sum_and_name_the_largest) {
  RunBytes bytes(1 << 20);
  bytes.add_value(range_node(), DType::kF32, {1 << 17});
  bytes.check_total(1 << 19, 1 << 19);
  CHECK(contains(refusal([&] { bytes.check_total((1 << 19) + 1, 1 << 19); }), "the largest value: node 'count'"));
  CHECK(!refusal([&] { bytes.check_total(~size_t{0}, ~size_t{0}); }).empty());
}

TEST(plan_limits_have_a_default_that_the_machine_can_bear) {
  CHECK(default_max_run_bytes() >= size_t{64} << 20);
  CHECK(default_max_run_bytes() <= size_t{4} << 30);
}
