#include <thread>

#include "batching/batcher.h"
#include "batching/fake_runner.h"
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
  while (rig.batcher->stats().in_flight) std::this_thread::yield();
  CHECK_EQ(rig.model->batches().size(), 3u);
  const Nanos learnt = checked.layout->cost.forecast(1).typical;
  CHECK(learnt > 9'000'000 && learnt < 11'000'000);
}
