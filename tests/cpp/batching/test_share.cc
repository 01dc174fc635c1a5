#include "batching/share.h"
#include "test.h"

using namespace inferkit;

namespace {

constexpr double kMicro = 1'000;

/// The answer where a run costs `fixed` and `row` microseconds a row.
int64_t share(int64_t rows, int64_t most, int idle, double fixed, double row, int64_t first = 1) {
  return share_of(rows, most, first, idle,
                  [=](int64_t n) { return static_cast<Nanos>((fixed + row * static_cast<double>(n)) * kMicro); });
}

}  // namespace

TEST(a_batch_is_shared_where_that_is_over_sooner) {
  CHECK_EQ(share(64, 64, 1, 0, 40), 32);
  CHECK_EQ(share(64, 64, 3, 0, 40), 16);
  CHECK_EQ(share(65, 128, 1, 0, 40), 33);
  CHECK_EQ(share(64, 64, 15, 0, 40), 4);
  CHECK_EQ(share(64, 64, 15, 0, 10), 8);    // waking more of them takes longer than they win
  CHECK_EQ(share(96, 64, 1, 0, 40), 48);    // more than one, less than two whole ones
  CHECK_EQ(share(64, 64, 1, 2000, 2), 64);  // nearly all of it is fixed
  CHECK_EQ(share(64, 64, 1, 0, 0.2), 64);   // over before another is awake
  CHECK_EQ(share(64, 64, 1, 0, 0), 64);     // nothing is known
}

TEST(a_batch_is_not_shared_where_there_is_no_need) {
  CHECK_EQ(share(64, 64, 0, 0, 40), 64);   // nobody else
  CHECK_EQ(share(128, 64, 1, 0, 40), 64);  // a whole one for each
  CHECK_EQ(share(1000, 64, 3, 0, 40), 64);
  CHECK_EQ(share(1, 64, 3, 0, 4000), 64);     // a single row
  CHECK_EQ(share(8, 64, 3, 0, 4000, 8), 64);  // a single request
}

TEST(a_share_holds_the_first_request) {
  for (int64_t first = 1; first <= 40; ++first) {
    for (int idle = 0; idle < 20; ++idle) CHECK(share(40, 64, idle, 0, 100, first) >= first);
  }
}

TEST(a_share_is_never_over_later_than_the_whole) {
  for (const double fixed : {0.0, 10.0, 500.0}) {
    for (const double row : {0.1, 3.0, 80.0}) {
      for (int64_t rows = 1; rows < 200; rows += 7) {
        for (int idle = 0; idle < 16; ++idle) {
          const int64_t each = share(rows, 64, idle, fixed, row);
          CHECK(each >= 1 && each <= 64);
          if (each == 64) continue;
          CHECK(each * (idle + 1) >= rows);  // nothing is left over
          CHECK(fixed + row * static_cast<double>(each) <
                fixed + row * static_cast<double>(std::min<int64_t>(rows, 64)));
        }
      }
    }
  }
}
