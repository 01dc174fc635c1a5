// The floating-point environment of runs: one for all callers and threads, and the callers' own untouched.
#include <atomic>
#include <bit>
#include <cfenv>
#include <cfloat>
#include <cmath>

#include "engine/graphs.h"
#include "engine/model/model.h"
#include "platform/float_environment.h"
#include "platform/thread_pool.h"
#include "subnormals.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

/// y = sigmoid(x c + x), 1,000,000 elements: more than one thread's share.
std::shared_ptr<Model> elementwise() {
  ModelFile file;
  Graph& g = file.graph;
  const ValueId x = g.add_value("x"), c = g.add_value("c"), a = g.add_value("a"), b = g.add_value("b"),
                y = g.add_value("y");
  g.values[0].dtype = DType::kF32;
  g.values[0].shape = Shape{1'000'000};
  const float factor[] = {0.3f};
  g.constants.emplace(c, make_tensor<float>({1}, factor));
  g.nodes = {make_node("Mul", {x, c}, {a}), make_node("Add", {a, x}, {b}), make_node("Sigmoid", {b}, {y})};
  g.inputs = {x};
  g.outputs = {y};
  file.opsets[""] = 17;
  return std::make_shared<Model>(std::move(file), ModelOptions{}, "");
}

std::vector<std::byte> bits(Model& model, const std::vector<float>& x, Shape shape) {
  VectorSink sink;
  const TensorView in{DType::kF32, shape, x.data()};
  CHECK_EQ(model.run({&in, 1}, sink).message, "");
  return sink.values[0];
}

std::vector<float> ramp() {
  std::vector<float> x(1'000'000);
  for (size_t i = 0; i < x.size(); ++i) {
    const auto at = static_cast<float>(i);
    x[i] = i % 3 == 0 ? std::ldexp(at, -149) : i % 3 == 1 ? at * 1e-5f : -at * 3e-5f;
  }
  return x;
}

/// Restores what a test changes.
class Restore {
 public:
  ~Restore() { FloatEnvironment::set(word_); }

 private:
  const FloatEnvironment::Word word_ = FloatEnvironment::current();
};

}  // namespace

TEST(float_environment_flushes_and_gives_back) {
  if (!can_flush_subnormals()) return;
  const Restore restore;
  const auto before = FloatEnvironment::current();
  volatile float tiny = 1e-40f, small = FLT_MIN, half = 0.5f, two = 2.0f;
  {
    const FloatEnvironment ours;
    CHECK_EQ(std::bit_cast<uint32_t>(float(tiny * two)), 0u);
    CHECK_EQ(std::bit_cast<uint32_t>(float(small * half)), 0u);
  }
  CHECK(before == FloatEnvironment::current());
  CHECK(std::bit_cast<uint32_t>(float(tiny * two)) != 0u);
}

TEST(float_environment_of_the_caller_does_not_change_the_bits) {
  const auto model = elementwise();
  const auto x = ramp();
  const auto expected = bits(*model, x, {1'000'000});
  const Restore restore;
  for (const int rounding : {FE_UPWARD, FE_TOWARDZERO, FE_DOWNWARD, FE_TONEAREST}) {
    std::fesetround(rounding);
    CHECK(bits(*model, x, {1'000'000}) == expected);
    CHECK_EQ(std::fegetround(), rounding);
  }
  if (!can_flush_subnormals()) return;
  FloatEnvironment::set(FloatEnvironment::kOurs);
  CHECK(bits(*model, x, {1'000'000}) == expected);
  CHECK(FloatEnvironment::current() == FloatEnvironment::kOurs);
}

TEST(float_environment_of_the_load_does_not_change_the_bits) {
  const auto x = ramp();
  const auto expected = bits(*elementwise(), x, {1'000'000});
  const Restore restore;
  std::fesetround(FE_UPWARD);
  const auto model = elementwise();
  std::fesetround(FE_TONEAREST);
  CHECK(bits(*model, x, {1'000'000}) == expected);
}

TEST(float_environment_is_as_it_was_after_a_run_with_its_flags) {
  const auto model = elementwise();
  std::vector<float> x(1'000'000, FLT_MAX);  // overflows inside
  const Restore restore;
  std::feclearexcept(FE_ALL_EXCEPT);
  const auto before = FloatEnvironment::current();
  bits(*model, x, {1'000'000});
  CHECK(before == FloatEnvironment::current());
  std::feraiseexcept(FE_DIVBYZERO);
  const auto raised = FloatEnvironment::current();
  bits(*model, x, {1'000'000});
  CHECK(raised == FloatEnvironment::current());
}

TEST(float_environment_is_the_same_in_every_thread_of_a_run) {
  if (!can_flush_subnormals()) return;
  ThreadPool pool(4);
  const Restore restore;
  for (int round = 0; round < 50; ++round) {
    // Another caller in between: helpers take what each job's caller has.
    std::atomic<int> other{0};
    const auto count = [&](FloatEnvironment::Word expected) {
      pool.parallel_for(64, 4, [&](int64_t) {
        // Sticky flags are each thread's own.
        if ((FloatEnvironment::current() ^ expected) & ~FloatEnvironment::Word{0x3f}) ++other;
      });
    };
    {
      const FloatEnvironment ours;
      count(FloatEnvironment::kOurs);
    }
    std::fesetround(FE_UPWARD);
    count(FloatEnvironment::current());
    std::fesetround(FE_TONEAREST);
    CHECK_EQ(other.load(), 0);
  }
}
