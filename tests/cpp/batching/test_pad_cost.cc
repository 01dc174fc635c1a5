// Whether padding pays: decided by what runs cost.
#include <cmath>
#include <numeric>

#include "batching/batcher.h"
#include "batching/fake_runner.h"
#include "batching/pad_cost.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

constexpr int64_t kPadded = 64, kShorter = 32;
constexpr Nanos kRow = 64'000;  // takes a row of kPadded

/// Runs of four requests of length 48, padded to 64, of which `took` is what one takes.
void padded_runs(PadCost& cost, Nanos took, int count = PadCost::kRuns, int64_t requests = 4, Nanos row = kRow) {
  for (int i = 0; i < count; ++i) {
    cost.learn({.padded = kPadded,
                .ran = kPadded,
                .requests = requests,
                .own = static_cast<uint64_t>(48 * requests),
                .all = static_cast<uint64_t>(kPadded * requests),
                .took = took * requests,
                .row_took = row,
                .row_elements = kPadded});
  }
}

void own_runs(PadCost& cost, Nanos took, int64_t count = PadCost::kRequests) {
  for (int64_t i = 0; i < count; ++i) {
    cost.learn({.padded = kPadded, .ran = 48, .requests = 1, .own = 48, .all = 48, .took = took, .row_elements = 48});
  }
}

/// What a model takes that takes 1 us for each place and nothing else.
void know(PadCost& cost) {
  CHECK(!cost.is_off(kShorter) && !cost.is_off(kPadded));
  cost.learn({.padded = kShorter,
              .ran = kShorter,
              .requests = 1,
              .own = kShorter,
              .all = kShorter,
              .took = kRow / 2,
              .row_took = kRow / 2,
              .row_elements = kShorter});
}

}  // namespace

TEST(padding_is_given_up_where_a_row_costs_no_less_in_a_batch) {
  PadCost cost;
  know(cost);
  padded_runs(cost, kRow, PadCost::kRuns - 1);
  CHECK(!cost.is_off(kPadded) && cost.figures().empty());
  padded_runs(cost, kRow, 1);
  const auto figures = cost.figures();
  CHECK(figures.size() == 1 && figures.at(kPadded).off);
  CHECK(std::abs(figures.at(kPadded).ratio - 64.0 / 48) < 1e-9);  // a third more than the work that there is
  CHECK(cost.is_off(kPadded) && !cost.is_off(kShorter));
}

TEST(padding_stays_where_a_batch_is_cheaper) {
  PadCost cost;
  know(cost);
  padded_runs(cost, kRow / 2, 100);
  CHECK(!cost.is_off(kPadded));
  CHECK(std::abs(cost.figures().at(kPadded).ratio - 32.0 / 48) < 1e-9);
}

TEST(padding_is_not_given_up_on_a_guess) {
  PadCost alone;
  know(alone);
  padded_runs(alone, kRow, 100, 1);  // nobody waits for them
  CHECK(!alone.is_off(kPadded));
  PadCost unknown;  // what a single row takes
  CHECK(!unknown.is_off(kPadded));
  padded_runs(unknown, kRow, 100);
  CHECK(!unknown.is_off(kPadded));
  PadCost first;
  know(first);
  for (int i = 0; i < 100; ++i) {
    first.learn(
        {.padded = kPadded, .ran = kPadded, .first = true, .requests = 4, .own = 192, .all = 256, .took = 1 << 30});
  }
  CHECK(!first.is_off(kPadded) && first.figures().empty());
}

TEST(padding_begins_again_where_their_own_batches_cost_more) {
  PadCost cost;
  know(cost);
  padded_runs(cost, kRow);
  CHECK(cost.is_off(kPadded));
  own_runs(cost, 2 * kRow);
  CHECK(!cost.is_off(kPadded));
  CHECK(std::abs(cost.figures().at(kPadded).ratio - 0.5) < 1e-9);
  // For a while: as many requests as would have gone the other way.
  padded_runs(cost, kRow, 100);
  for (int64_t i = 2; i < PadCost::kOff; ++i) CHECK(!cost.is_off(kPadded));
  padded_runs(cost, kRow, 100);
  CHECK(!cost.is_off(kPadded));  // the last one of them
  padded_runs(cost, kRow);
  CHECK(cost.is_off(kPadded));
  own_runs(cost, 2 * kRow);
  for (int64_t i = 1; i < 2 * PadCost::kOff; ++i) CHECK(!cost.is_off(kPadded));
}

TEST(padding_compares_with_nothing_where_the_clock_stands_still) {
  PadCost cost;
  know(cost);
  padded_runs(cost, kRow);
  const double before = cost.figures().at(kPadded).ratio;
  own_runs(cost, 0);
  CHECK_EQ(cost.figures().at(kPadded).ratio, before);
  CHECK(cost.is_off(kPadded));
}

TEST(padding_is_tried_again_after_a_while) {
  PadCost cost;
  know(cost);
  padded_runs(cost, kRow);
  for (int64_t i = 1; i < PadCost::kOff; ++i) CHECK(cost.is_off(kPadded));
  own_runs(cost, kRow * 48 / 64);
  CHECK(!cost.is_off(kPadded));
  padded_runs(cost, kRow);
  CHECK(cost.is_off(kPadded));  // as before
  for (int64_t i = 2; i < PadCost::kOff; ++i) CHECK(cost.is_off(kPadded));
  CHECK(!cost.is_off(kPadded));
  padded_runs(cost, kRow / 8);  // more come at once now
  CHECK(!cost.is_off(kPadded));
  cost.clear();
  CHECK(cost.figures().empty());
}

namespace {

/// A batcher whose model takes `per_run`, and `per_place` for each number that runs, on a clock of its own.
struct TimedRig {
  TimedRig(Nanos per_run, Nanos per_place) {
    BatcherOptions options;
    options.max_batch_size = 4;
    options.pad = {{PaddedInput{1, {}}}, {8, 16}, 0};
    rig = std::make_unique<Rig>(options, Shape{Shape::kFree, Shape::kFree}, clock);
    rig->model->on_run = [this, per_run, per_place] {
      const Shape shape = rig->model->batches().back();
      clock.advance(per_run + per_place * shape.elements());
    };
  }

  /// Requests of these lengths that come while something runs, and so may share a batch.
  void round(std::initializer_list<int64_t> lengths) {
    rig->model->shut();
    const size_t before = rig->model->batches().size();
    std::vector<std::pair<RequestRef, int64_t>> all;
    const auto submit = [&](int64_t length) {
      std::vector<float> values(static_cast<size_t>(length));
      std::iota(values.begin(), values.end(), 1.0f);
      all.emplace_back(rig->submit(values, {length}), length);
    };
    submit(16);
    rig->model->wait_for_runs(before + 1);
    submit(8);
    for (const int64_t length : lengths) submit(length);
    rig->model->open();
    for (const auto& [request, length] : all) {
      CHECK(rig->batcher->wait(*request) == Waited::kDone && request->phase() == Phase::kResult);
      const std::vector<float> got = answer(*request);
      CHECK_EQ(got.size(), static_cast<size_t>(length));
      for (size_t i = 0; i < got.size(); ++i) CHECK_EQ(got[i], 2 * static_cast<float>(i + 1) + 1);
    }
  }

  ManualClock clock{1'000'000};
  std::unique_ptr<Rig> rig;
};

}  // namespace

TEST(padding_is_given_up_while_serving_where_it_loses) {
  TimedRig wide(1'000'000, 10), heavy(0, 1'000);
  for (int i = 0; i < 3 * PadCost::kRuns; ++i) {
    for (TimedRig* of : {&wide, &heavy}) of->round({10, 11, 12, 10});
  }
  const auto figures = [](TimedRig& of) { return of.rig->batcher->stats().padding_costs; };
  CHECK(!figures(wide).at(16).off && figures(wide).at(16).ratio < 0.5);
  CHECK(figures(heavy).at(16).off && figures(heavy).at(16).ratio > 1.2);
  const uint64_t before = heavy.rig->batcher->stats().padding;
  heavy.round({10, 11, 12, 10});
  CHECK_EQ(heavy.rig->batcher->stats().padding, before);
}
