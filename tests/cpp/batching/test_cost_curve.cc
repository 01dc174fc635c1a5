#include <cmath>
#include <random>
#include <thread>

#include "batching/cost_curve.h"
#include "batching/cut.h"
#include "batching/line.h"
#include "batching/request.h"
#include "test.h"

using namespace inferkit;

namespace {
constexpr Nanos kMilli = 1'000'000;

/// Runs of `rows` rows, one after the other.
void run(CostCurve& curve, int64_t rows, Nanos took, int times, Nanos& now) {
  for (int i = 0; i < times; ++i) curve.learn(rows, took, now += took);
}
bool near(Nanos a, Nanos b, double by = 0.02) { return std::abs(double(a - b)) <= by * double(b); }
}  // namespace

TEST(cost_classes_cover_every_size) {
  CHECK_EQ(CostCurve::class_of(1), 0u);
  size_t last = 0;
  int64_t first = 1;
  for (int64_t n = 2; n <= 5000; ++n) {
    const size_t at = CostCurve::class_of(n);
    CHECK(at == last || at == last + 1);
    if (at != last) {
      CHECK(double(n - 1) / double(first) <= 1.5);
      first = n;
    }
    last = at;
  }
}

TEST(cost_is_unknown_until_something_has_run) {
  CostCurve curve;
  Nanos now = 0;
  CHECK_EQ(curve.forecast(4).typical, 0);
  run(curve, 4, 50 * kMilli, 1, now);  // compiles, too
  CHECK_EQ(curve.forecast(4).typical, 50 * kMilli);
  CHECK(!curve.forecast(4).seen && !curve.forecast(4).known);
  run(curve, 4, 5 * kMilli, 3, now);
  CHECK(near(curve.forecast(4).typical, 5 * kMilli));
  CHECK(curve.forecast(4).seen && curve.forecast(4).known);
}

TEST(cost_is_not_moved_by_one_slow_run) {
  CostCurve curve;
  Nanos now = 0;
  run(curve, 8, 2 * kMilli, 20, now);
  run(curve, 8, 90 * kMilli, 1, now);
  CHECK(near(curve.forecast(8).typical, 2 * kMilli));
  CHECK(near(curve.forecast(8).high, 2 * kMilli));
  run(curve, 8, 2 * kMilli, 3, now);
  run(curve, 8, 6 * kMilli, 1, now);  // the second of sixteen
  CHECK(near(curve.forecast(8).typical, 2 * kMilli));
  CHECK(curve.forecast(8).high > 5 * kMilli);
  CHECK(near(curve.forecast(8).likely, 2 * kMilli));  // what one request of many is judged by
  for (int i = 0; i < 2; ++i) {                       // until one of four or five is slow
    run(curve, 8, 2 * kMilli, 1, now);
    run(curve, 8, 6 * kMilli, 1, now);
  }
  CHECK(near(curve.forecast(8).typical, 2 * kMilli));
  CHECK(curve.forecast(8).likely > 5 * kMilli);
}

TEST(cost_follows_a_machine_that_changes) {
  CostCurve curve;
  Nanos now = 0;
  run(curve, 64, 10 * kMilli, 20, now);
  run(curve, 1, kMilli, 20, now);
  CHECK(near(curve.forecast(64).typical, 10 * kMilli));
  run(curve, 1, 20 * kMilli, 4, now);
  CHECK(near(curve.forecast(1).typical, 20 * kMilli));
  CHECK(near(curve.forecast(64).typical, 20 * kMilli));  // at least what one row costs now
  run(curve, 1, kMilli / 100, 4, now);
  CHECK(near(curve.forecast(1).typical, kMilli / 100));
  CHECK(curve.forecast(64).typical <= 8 * kMilli / 10);  // and at most 64 times that, and some
  run(curve, 1, 100 * kMilli, 20, now);
  now += 1000 * kMilli;  // a pause: whoever is the first to run again may find the figures wrong
  run(curve, 1, kMilli, 1, now);
  CHECK(near(curve.forecast(1).typical, kMilli));
}

TEST(cost_does_not_rest_on_the_slowest_of_a_few_long_runs) {
  for (const Nanos pause : {Nanos{0}, 100 * kMilli}) {
    CostCurve curve;
    Nanos now = 0;
    run(curve, 1, kMilli, 100, now);
    for (const Nanos took : {21 * kMilli / 10, 21 * kMilli / 10, 1000 * kMilli}) {
      now += pause;
      run(curve, 1, took, 1, now);  // which is no pause itself
    }
    CHECK(curve.forecast(1).typical < 3 * kMilli);
  }
}

TEST(cost_of_one_size_does_not_run_away_with_that_of_others) {
  CostCurve curve;
  std::mt19937 random(3);
  Nanos now = 0;
  bool bounded = true;
  for (int i = 0; i < 100'000; ++i) {  // as under a lock that all fight for
    const int64_t rows = 1 + random() % 6;
    const Nanos took = rows * 10'000 * (random() % 3 ? 1 : 500);
    curve.learn(rows, took, now += took);
    // 64 rows take 0.64 ms, or 320 ms where every one is slow.
    const Forecast f = curve.forecast(64);
    bounded &= f.typical >= 10'000 && f.high < 1000 * kMilli;
  }
  CHECK(bounded);
}

TEST(cost_between_and_beyond_what_has_run) {
  CostCurve curve;
  Nanos now = 0;
  run(curve, 10, 20 * kMilli, 4, now);
  CHECK(near(curve.forecast(40).typical, 50 * kMilli));  // more than for 10, less than in proportion
  CHECK(curve.forecast(1).typical < 20 * kMilli && curve.forecast(1).typical >= 10 * kMilli);
  CHECK(!curve.forecast(1).known);
  CHECK(curve.forecast(1).high >= 20 * kMilli);  // fewer rows may cost as much
  run(curve, 30, 40 * kMilli, 4, now);
  CHECK(near(curve.forecast(20).typical, 30 * kMilli));
  CHECK(near(curve.forecast(29).typical, 39 * kMilli));
  CHECK(near(curve.forecast(60).typical, 70 * kMilli));
}

TEST(cost_first_runs_of_a_size_count_where_they_are_like_others) {
  CostCurve curve;
  Nanos now = 0;
  for (int64_t n = 33; n <= 48; ++n) curve.learn(n, n * kMilli, now += kMilli);
  CHECK(curve.forecast(40).known);
  CHECK(near(curve.forecast(40).typical, 40 * kMilli, 0.1));
  curve.learn(20, 900 * kMilli, now += kMilli);  // it compiled
  CHECK(curve.forecast(20).typical < 40 * kMilli);
}

TEST(cost_is_learnt_by_many_threads) {
  CostCurve curve;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 3000; ++i) {
        const int64_t rows = 1 + (i * 7 + t) % 64;
        curve.learn(rows, rows * 1000, Nanos{i} * 1000);
        const Forecast f = curve.forecast(rows);
        CHECK(f.typical >= 0 && f.likely >= f.typical && f.high >= f.likely);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(near(curve.forecast(32).typical, 32'000, 0.3));
}

namespace {
RequestRef waiting(Line& line, Nanos deadline, int64_t rows = 1) {
  static const auto layout = std::make_shared<RowLayout>(std::vector{Shape{2}}, std::vector{size_t{8}});
  RequestRef made(new Request(layout, rows, false, {.deadline = deadline}));
  made->advance(Phase::kWaiting, Phase::kQueued);
  line.push(made);
  return made;
}
Forecast lasts(Nanos typical, Nanos likely) { return {typical, likely, 2 * likely, true, true}; }
/// Whom the next batch holds.
std::vector<bool> taken(const Line& line, const Cut& cut) {
  std::vector<bool> out;
  int64_t room = cut.max_rows();
  for (const Request* r = line.first(); r; r = Line::next(*r)) {
    const bool in = !cut.leaves_out(*r) && r->rows <= room;
    if (in) room -= r->rows;
    out.push_back(in);
  }
  return out;
}
}  // namespace

TEST(cut_takes_all_that_are_in_time) {
  Line line;
  for (int i = 0; i < 4; ++i) waiting(line, 100);
  const auto cost = [](int64_t n) { return lasts(10 * n, 12 * n); };
  CHECK((taken(line, Cut(line, 8, 0, cost)) == std::vector<bool>{1, 1, 1, 1}));
}

TEST(cut_computes_nothing_that_will_be_late) {
  Line line;
  waiting(line, 9);
  waiting(line, 100);
  const auto cost = [](int64_t n) { return lasts(9 + n, 9 + n); };
  CHECK((taken(line, Cut(line, 8, 0, cost)) == std::vector<bool>{0, 1}));
  const auto guess = [](int64_t n) { return Forecast{9 + n, 9 + n, 9 + n, false, false}; };
  CHECK((taken(line, Cut(line, 8, 0, guess)) == std::vector<bool>{1, 0}));  // alone, to find out
  CHECK((taken(line, Cut(line, 8, 9, guess)) == std::vector<bool>{0, 1}));  // its time has passed
}

TEST(cut_is_shorter_where_that_costs_little) {
  Line line;
  waiting(line, 25);
  for (int i = 0; i < 3; ++i) waiting(line, 100);
  const auto by_row = [](int64_t n) { return lasts(10 * n, 10 * n); };
  CHECK((taken(line, Cut(line, 8, 0, by_row)) == std::vector<bool>{1, 1, 0, 0}));
  const auto at_once = [](int64_t n) { return lasts(24 + n, 24 + n); };
  CHECK((taken(line, Cut(line, 8, 0, at_once)) == std::vector<bool>{0, 1, 1, 1}));  // the first is hopeless
}

TEST(cut_lets_the_tight_expire_rather_than_shrink_all_batches) {
  Line line;
  waiting(line, 30);
  for (int i = 0; i < 7; ++i) waiting(line, 48);
  // Alone it would be in time, but the others would not be, after it.
  const auto cost = [](int64_t n) { return lasts(25 + n, 25 + n); };
  CHECK((taken(line, Cut(line, 8, 0, cost)) == std::vector<bool>{0, 1, 1, 1, 1, 1, 1, 1}));
}

TEST(cost_of_another_model_is_unknown_until_that_has_run) {
  CostCurve curve;
  Nanos now = 0;
  run(curve, 1, 200 * kMilli, 20, now);
  run(curve, 8, 300 * kMilli, 20, now);
  curve.forget();
  for (const int64_t rows : {1, 5, 8, 64}) {
    CHECK_EQ(curve.forecast(rows).typical, 0);
    CHECK_EQ(curve.measured(rows), 0);
    CHECK(!curve.has_run(rows));
  }
  run(curve, 1, kMilli, 4, now);
  const Forecast known = curve.forecast(1);
  CHECK(known.known && known.typical == kMilli && known.high < 2 * kMilli);
  CHECK(curve.forecast(8).typical <= 8 * kMilli && !curve.forecast(8).seen);
}
