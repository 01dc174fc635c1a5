#include "batching/batcher.h"
#include "batching/fake_runner.h"
#include "batching/swap_runner.h"
#include "comes_true.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {
bool ends(Rig& rig, const RequestRef& request, Phase phase) {
  return rig.batcher->wait(*request) == Waited::kDone && request->phase() == phase;
}
}  // namespace

TEST(proof_lets_a_batcher_fill_up_a_fixed_number_of_rows) {
  Rig rig({}, {3, 2});
  const RequestRef first = rig.row(1);
  CHECK(ends(rig, first, Phase::kResult));
  CHECK((answer(*first) == std::vector<float>{3, 3}));
  // Once, two runs more show that a row's answer does not depend on what stands beside it.
  CHECK((rig.model->batches() == std::vector<Shape>{{3, 2}, {3, 2}, {3, 2}}));
  rig.model->shut();
  const RequestRef whole = rig.submit({1, 1, 2, 2, 3, 3}, {3, 2});
  rig.model->wait_for_runs(4);
  const RequestRef a = rig.row(4), b = rig.submit({5, 6}, {1, 2}), c = rig.submit({7, 7, 8, 8}, {2, 2});
  rig.model->open();
  for (const auto& r : {whole, a, b, c}) CHECK(ends(rig, r, Phase::kResult));
  CHECK((answer(*whole) == std::vector<float>{3, 3, 5, 5, 7, 7}));
  CHECK((answer(*b) == std::vector<float>{11, 13}));
  CHECK((answer(*c) == std::vector<float>{15, 15, 17, 17}));
  CHECK_EQ(rig.model->batches().size(), 6u);  // a and b in one
}

TEST(proof_fails_where_rows_depend_on_one_another) {
  Rig rig({}, {3, 2});
  rig.model->sees_neighbours = true;
  const RequestRef first = rig.row(1);
  CHECK(ends(rig, first, Phase::kError));
  CHECK(first->status.code == ErrorCode::kValidation && first->status.reason == Reason::kShape);
  CHECK(first->status.message.find("depends on the others") != std::string::npos);
  CHECK(error_of([&] { rig.row(1); }).reason == Reason::kShape);  // at the door, from now on
  CHECK(ends(rig, rig.submit(std::vector<float>(6), {3, 2}), Phase::kResult));
  CHECK_EQ(rig.batcher->stats().invalid, 2u);
}

TEST(proof_is_no_part_of_what_a_run_takes) {
  ManualClock clock(1'000'000);
  Rig rig({}, {3, 2}, clock);
  rig.model->on_run = [&clock] { clock.advance(10'000'000); };
  const float value[2] = {1, 1};
  const std::vector views{StridedView::contiguous({DType::kF32, {2}, value})};
  const Checked checked = rig.batcher->check(views);
  CHECK(ends(rig, rig.row(1), Phase::kResult));
  CHECK(comes_true([&] { return rig.batcher->stats().in_flight == 0; }));
  CHECK_EQ(rig.model->batches().size(), 3u);
  const Nanos learnt = checked.layout->cost.forecast(1).typical;
  CHECK(learnt > 9'000'000 && learnt < 11'000'000);
}

TEST(proof_of_a_model_that_was_replaced_says_nothing_of_the_next_one) {
  FakeRunner apart({3, 2}), mixing({3, 2});
  mixing.sees_neighbours = true;
  BufferPool pool;
  RowLayout layout({Shape{2}}, {2 * sizeof(float)});
  layout.fixed_rows = 3;
  const float values[6] = {1, 2, 1, 2, 1, 2};
  const TensorView input{DType::kF32, {3, 2}, values};
  const auto find_out = [&](RowProof& proof, FakeRunner& model, uint64_t number) {
    PooledSink sink(model.outputs(), pool);
    sink.prepare(3);
    CHECK(model.run({&input, 1}, sink).ok());
    return proof.find_out(HeldModel(model, number), pool, layout, {&input, 1}, sink.views());
  };
  RowProof proof;
  CHECK(find_out(proof, apart, 5));
  CHECK(proof.known(5) && !proof.rows_mix(5));
  CHECK(!find_out(proof, mixing, 4));  // by who began before the swap, and came to the end after it
  CHECK(proof.known(5) && !proof.rows_mix(5) && !proof.known(4));
  CHECK(!find_out(proof, mixing, 6));
  CHECK(proof.rows_mix(6) && !proof.known(5));
}

// Of two models, one combines the rows of a run. What is found of the other must never let it do so.
TEST(proof_among_swaps_is_of_the_model_that_ran) {
  const auto mixing = [] {
    auto model = std::make_shared<FakeRunner>(Shape{3, 2});
    model->sees_neighbours = true;
    return model;
  };
  const auto runner = std::make_shared<SwapRunner>(std::make_shared<FakeRunner>(Shape{3, 2}));
  BatcherOptions options;
  options.workers = 2;
  Batcher batcher(runner, options, std::make_shared<BufferPool>());
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0}, answered{0}, refused{0};
  std::vector<std::jthread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (int n = 1; !stop; ++n) {
        const float x = float(t * 100 + n % 100), values[2] = {x, x};
        try {
          const RequestRef request =
              batcher.submit(std::vector{StridedView::contiguous({DType::kF32, {2}, values})}, {});
          CHECK(batcher.wait(*request) == Waited::kDone);
          const bool well = request->phase() == Phase::kResult;
          if (well && answer(*request) != std::vector<float>{2 * x + 1, 2 * x + 1}) ++wrong;
          ++(well ? answered : refused);
        } catch (const Error& error) {
          CHECK(error.reason() == Reason::kShape);
          ++refused;
        }
      }
    });
  }
  for (int n = 0; n < 3000 || answered < 500 || refused < 500; ++n) {
    runner->swap(n % 2 ? std::make_shared<FakeRunner>(Shape{3, 2}) : mixing());
  }
  stop = true;
  threads.clear();
  CHECK_EQ(wrong.load(), 0);
}
