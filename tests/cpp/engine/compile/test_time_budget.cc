// What folding may take, by estimate and by the clock.
#include <limits>

#include "engine/compile/compile.h"
#include "engine/compile/time_budget.h"
#include "engine/graphs.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

constexpr int64_t kPlenty = std::numeric_limits<int64_t>::max() / 4;

std::vector<Tensor> multiply(int64_t n, TimeBudget& time) {
  const std::vector<double> values(static_cast<size_t>(n * n), 1.0);
  const Tensor a = make_tensor<double>({n, n}, std::span<const double>(values));
  const Tensor* inputs[] = {&a, &a};
  return evaluate_node(make_node("MatMul", {0, 1}, {2}), inputs, {.time = &time});
}

}  // namespace

TEST(estimates_are_counted) {
  TimeBudget time(100);
  CHECK(time.take(60));
  CHECK(!time.take(60));
  CHECK(time.take(40));
}

TEST(work_ends_with_its_time) {
  TimeBudget time(kPlenty, 2'000'000);
  int64_t rounds = 0;
  const auto endless = [&] {
    for (;; ++rounds) RunControl::check();
  };
  CHECK(!time.spend(endless));
  CHECK(!time.spend(endless));  // there is none left
  CHECK(TimeBudget(1'000'000'000).spend([] { RunControl::check(); }));
}

TEST(work_that_was_to_stop_anyway_is_not_out_of_time) {
  class Off final : public RunControl {
    bool look(Nanos) override { return true; }
  };
  Off control;
  const RunControl::Scope scope(&control);
  TimeBudget time(kPlenty, kPlenty);
  CHECK_THROWS(time.spend([] { RunControl::check(); }), Stopped);
}

TEST(a_node_whose_estimate_is_wrong_is_given_up) {
  TimeBudget estimated(1), real(kPlenty, 1), enough(kPlenty, kPlenty);
  CHECK(multiply(64, estimated).empty());
  CHECK(multiply(64, real).empty());
  const std::vector<Tensor> product = multiply(64, enough);
  CHECK_EQ(product.size(), size_t{1});
  CHECK_EQ(product.at(0).as<double>()[0], 64.0);
}
