#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include "batching/fake_runner.h"
#include "batching/swap_runner.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

/// Says when it dies; its answer is its number.
class Numbered final : public Runner {
 public:
  Numbered(float number, std::atomic<int>& alive) : number_(number), alive_(alive) { ++alive_; }
  ~Numbered() override {
    number_ = -1;
    --alive_;
  }
  std::span<const PortSpec> inputs() const override { return ports_; }
  std::span<const PortSpec> outputs() const override { return ports_; }
  bool needs_gil() const override { return false; }
  int64_t estimate_nanos(std::span<const Shape>) const override { return int64_t(number_); }
  Status run(std::span<const TensorView> inputs, OutputSink& sink) noexcept override {
    float* y = static_cast<float*>(sink.allocate(0, DType::kF32, inputs[0].shape));
    y[0] = number_;
    if (on_run) on_run();
    y[1] = number_;
    return {};
  }
  bool values_decide() const override { return values_decide_; }
  std::function<void()> on_run;
  std::atomic<bool> values_decide_{false};

 private:
  float number_;
  std::atomic<int>& alive_;
  const std::vector<PortSpec> ports_{{"x", DType::kF32, {Shape::kFree, 2}}};
};

struct Answer final : OutputSink {
  void* allocate(size_t, DType, const Shape&) override { return y; }
  float y[2] = {-2, -2};
};

Answer ask(Runner& runner) {
  const float x[2] = {};
  const TensorView input{DType::kF32, {1, 2}, x};
  Answer answer;
  CHECK(runner.run({&input, 1}, answer).ok());
  return answer;
}

}  // namespace

TEST(swap_runs_the_model_that_is_there) {
  std::atomic<int> alive{0};
  SwapRunner runner(std::make_shared<Numbered>(1.0f, alive));
  CHECK_EQ(ask(runner).y[0], 1.0f);
  CHECK_EQ(runner.generation(), 0u);
  runner.swap(std::make_shared<Numbered>(2.0f, alive));
  CHECK_EQ(runner.generation(), 1u);
  CHECK_EQ(ask(runner).y[1], 2.0f);
  CHECK_EQ(runner.estimate_nanos({}), 2);
  CHECK_EQ(alive.load(), 1);  // the one before has gone
}

TEST(swap_leaves_a_run_its_model) {
  std::atomic<int> alive{0};
  auto first = std::make_shared<Numbered>(1.0f, alive);
  SwapRunner runner(first);
  first->on_run = [&] {
    runner.swap(std::make_shared<Numbered>(2.0f, alive));
    first.reset();
    CHECK_EQ(alive.load(), 2);
    CHECK_EQ(ask(runner).y[0], 2.0f);
  };
  const Answer answer = ask(runner);
  CHECK_EQ(answer.y[0], 1.0f);
  CHECK_EQ(answer.y[1], 1.0f);
  CHECK_EQ(alive.load(), 1);
}

TEST(swap_leaves_who_holds_a_model_that_model_and_its_number) {
  std::atomic<int> alive{0};
  SwapRunner runner(std::make_shared<Numbered>(0.0f, alive));
  {
    const HeldModel before = runner.hold();
    runner.swap(std::make_shared<Numbered>(1.0f, alive));
    const HeldModel now = runner.hold();
    CHECK_EQ(alive.load(), 2);
    CHECK_EQ(before.generation, 0u);
    CHECK_EQ(ask(*before).y[0], 0.0f);
    CHECK_EQ(now.generation, 1u);
    CHECK_EQ(ask(*now).y[0], 1.0f);
  }
  CHECK_EQ(alive.load(), 1);  // the one before has gone with who held it
}

TEST(swap_knows_whether_values_decide_from_the_present_model_alone) {
  std::atomic<int> alive{0};
  const auto first = std::make_shared<Numbered>(1.0f, alive);
  first->on_run = [&] { first->values_decide_ = true; };  // it finds out while it runs
  SwapRunner runner(first);
  CHECK(!runner.values_decide());
  ask(runner);
  CHECK(runner.values_decide());
  {
    const HeldModel held = runner.hold();
    runner.swap(std::make_shared<Numbered>(2.0f, alive));
    CHECK(!runner.values_decide());
  }  // who holds the one before says nothing of this one
  CHECK(!runner.values_decide());

  const auto third = std::make_shared<Numbered>(3.0f, alive);
  runner.swap(third);
  {  // batches hold the model that they run
    const HeldModel held = runner.hold();
    third->values_decide_ = true;
    CHECK(!runner.values_decide());
  }
  CHECK(runner.values_decide());
  third->values_decide_ = false;
  ask(runner);
  CHECK(!runner.values_decide());
}

TEST(swap_refuses_what_is_no_substitute) {
  SwapRunner runner(std::make_shared<FakeRunner>(Shape{Shape::kFree, 2}));
  CHECK_THROWS(runner.swap(std::make_shared<FakeRunner>(Shape{Shape::kFree, 3})), std::invalid_argument);
  auto mixes = std::make_shared<FakeRunner>(Shape{Shape::kFree, 2});
  mixes->mixes = true;
  CHECK_THROWS(runner.swap(mixes), std::invalid_argument);
}

TEST(swap_among_runs_of_many_threads) {
  std::atomic<int> alive{0};
  {
    SwapRunner runner(std::make_shared<Numbered>(0.0f, alive));
    std::atomic<bool> stop{false};
    std::atomic<int> wrong{0}, asked{0};
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        while (!stop) {
          const Answer answer = ask(runner);
          wrong += answer.y[0] != answer.y[1] || answer.y[0] < 0;
          // A model that is held is that of its number, and runs as often as is asked for: a proof rests on it.
          const HeldModel held = runner.hold();
          const Answer first = ask(*held), second = ask(*held);
          wrong += first.y[0] != float(held.generation) || second.y[1] != float(held.generation);
          wrong += runner.generation() < held.generation;
          ++asked;
        }
      });
    }
    for (int n = 1; n <= 2000 || asked < 4000; ++n) runner.swap(std::make_shared<Numbered>(float(n), alive));
    stop = true;
    threads.clear();
    CHECK_EQ(wrong.load(), 0);
    CHECK_EQ(alive.load(), 1);
  }
  CHECK_EQ(alive.load(), 0);
}

TEST(swap_ends_what_was_learnt_of_the_model_before) {
  constexpr Nanos kMilli = 1'000'000;
  Rig rig({.max_batch_size = 8, .pace = {.sizes = true}});
  const LayoutRef layout =
      rig.batcher->check(std::vector{StridedView::contiguous({DType::kF32, {2}, std::vector<float>{1, 1}.data()})})
          .layout;
  const auto known = [&] { return layout->cost.forecast(1).known; };
  for (int i = 0; i < 50; ++i) CHECK(rig.batcher->wait(*rig.row(1)) == Waited::kDone);
  CHECK(rig.batcher->drain() && known());
  // Of another model nothing is known, but for what a trial of it has shown.
  rig.model->number = 1;
  const Intake::Checks& checks = rig.batcher->checks_for(*rig.model);
  rig.batcher->follow(checks);
  CHECK(!known() && layout->cost.forecast(1).typical == 0);
  rig.model->number = 2;
  const std::vector<Lesson> lessons(4, Lesson{layout, 1, 7 * kMilli});
  rig.batcher->follow(checks, lessons);
  CHECK(known() && layout->cost.forecast(1).typical == 7 * kMilli);
}

TEST(swap_leaves_a_run_that_ends_later_out_of_what_is_learnt) {
  FakeRunner runner;
  Predictor predictor(runner);
  const RowLayout layout({{2}}, {8});
  for (Nanos now = 1; now <= 6; ++now) predictor.learn(layout, 1, 1000, now, 0);
  CHECK_EQ(predictor.forecast(layout, 1).typical, 1000);
  predictor.follow(1, [&] { layout.cost.forget(); });
  for (Nanos now = 7; now <= 12; ++now) predictor.learn(layout, 1, 1000, now, 0);
  CHECK_EQ(predictor.forecast(layout, 1).typical, 0);
  for (Nanos now = 13; now <= 18; ++now) predictor.learn(layout, 1, 10, now, 1);
  CHECK_EQ(predictor.forecast(layout, 1).typical, 10);
}

TEST(swap_while_many_learn_leaves_nothing_of_the_model_before) {
  FakeRunner runner;
  Predictor predictor(runner);
  const RowLayout layout({{2}}, {8});
  std::atomic<uint64_t> generation{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      for (Nanos now = 1; !stop; ++now) {
        const uint64_t of = generation;  // another one may come before it is learnt
        predictor.learn(layout, 1, of % 2 ? 1000 : 10, now, of);
      }
    });
  }
  for (uint64_t next = 1; next <= 200; ++next) {
    predictor.follow(next, [&] { layout.cost.forget(); });
    const Forecast nothing = predictor.forecast(layout, 1);  // those before it are left out, and no others come yet
    CHECK_EQ(nothing.typical, 0);
    generation = next;
    std::this_thread::yield();
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
}
