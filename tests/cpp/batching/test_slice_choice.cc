#include "batching/slice_choice.h"
#include "test.h"

using namespace inferkit;

namespace {

constexpr Nanos kMicro = 1'000, kMilli = 1'000'000;

void runs(SliceChoice& choice, int count, Nanos each) {
  for (int i = 0; i < count; ++i) choice.run(each);
}

}  // namespace

TEST(slice_choice_waits_until_something_is_known) {
  SliceChoice choice;
  runs(choice, 1000, 0);
  CHECK_EQ(choice.wanted(), 0);
  choice.run(90 * kMicro);
  CHECK_EQ(choice.wanted(), 0);
  choice.run(90 * kMicro);
  CHECK_EQ(choice.wanted(), 100 * kMicro);
}

TEST(slice_choice_is_the_shortest_that_runs_fit_into) {
  const auto of = [](Nanos each) {
    SliceChoice choice;
    runs(choice, 2, each);
    return choice.wanted();
  };
  CHECK_EQ(of(1), 100 * kMicro);
  CHECK_EQ(of(100 * kMicro), 100 * kMicro);
  CHECK_EQ(of(101 * kMicro), 200 * kMicro);
  CHECK_EQ(of(700 * kMicro), 800 * kMicro);
  CHECK_EQ(of(3 * kMilli), 3'200 * kMicro);
  CHECK_EQ(of(10'000 * kMilli), 102'400 * kMicro);  // longer than any kernel's usual one: as good as nothing
}

TEST(slice_choice_forgets_the_first_run_and_rare_long_ones) {
  SliceChoice choice;
  choice.run(50 * kMilli);  // as the first run says, which also compiles
  runs(choice, 1, 90 * kMicro);
  CHECK_EQ(choice.wanted(), 51'200 * kMicro);
  runs(choice, 4, 90 * kMicro);
  CHECK_EQ(choice.wanted(), 100 * kMicro);
  for (int i = 0; i < 2000; ++i) choice.run(i % 40 == 39 ? 5 * kMilli : 90 * kMicro);
  CHECK(choice.wanted() <= 100 * kMicro || choice.wanted() == 6'400 * kMicro);
  runs(choice, 512, 90 * kMicro);
  for (int i = 0; i < 2560; ++i) {
    choice.run(i % 40 == 39 ? 5 * kMilli : 90 * kMicro);
    CHECK_EQ(choice.wanted(), 100 * kMicro);
  }
}

TEST(slice_choice_grows_with_the_runs_and_shrinks_only_where_they_are_much_shorter) {
  SliceChoice choice;
  runs(choice, 2000, 90 * kMicro);
  runs(choice, 512, 300 * kMicro);
  CHECK_EQ(choice.wanted(), 400 * kMicro);
  runs(choice, 2000, 150 * kMicro);
  CHECK_EQ(choice.wanted(), 400 * kMicro);
  runs(choice, 512, 90 * kMicro);
  CHECK_EQ(choice.wanted(), 100 * kMicro);
  runs(choice, 512, 8 * kMilli);  // another model
  CHECK_EQ(choice.wanted(), 12'800 * kMicro);
}

TEST(slice_choice_changes_seldom_where_runs_are_of_two_kinds) {
  SliceChoice choice;
  int changes = 0;
  Nanos before = 0;
  for (int i = 0; i < 10'000; ++i) {
    choice.run(i % 3 ? 90 * kMicro : 300 * kMicro);
    changes += choice.wanted() != before;
    before = choice.wanted();
  }
  CHECK_EQ(before, 400 * kMicro);
  CHECK(changes <= 2);
}
