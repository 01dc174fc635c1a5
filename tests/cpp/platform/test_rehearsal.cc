#include <thread>
#include <vector>

#include "platform/rehearsal.h"
#include "test.h"

using namespace inferkit;

TEST(rehearsal_runs_on_the_calling_thread_alone) {
  ThreadPool pool(2);
  const auto here = std::this_thread::get_id();
  std::vector<int> seen(100);
  bool elsewhere = false;
  {
    const Rehearsal rehearsal(64);
    CHECK_EQ(pool.size(), 64);
    pool.parallel_for(100, 64, [&](int64_t i, int64_t slot) {
      ++seen[static_cast<size_t>(i)];
      elsewhere = elsewhere || slot != 0 || std::this_thread::get_id() != here;
    });
    CHECK(Rehearsal::current() == &rehearsal);
  }
  CHECK(Rehearsal::current() == nullptr);
  CHECK_EQ(pool.size(), 2);
  CHECK(!elsewhere);
  for (const int times : seen) CHECK_EQ(times, 1);
}

TEST(rehearsal_counts_what_several_threads_would_share) {
  ThreadPool pool(1);
  Rehearsal rehearsal(4);
  pool.parallel_for(8, 4, [](int64_t) {});
  CHECK_EQ(rehearsal.synchronizations(), 1);
  pool.parallel_for(1, 4, [](int64_t) {});  // one piece is nobody else's
  pool.parallel_for(8, 1, [](int64_t) {});
  CHECK_EQ(rehearsal.synchronizations(), 1);
  pool.parallel_for(2, 4, [&](int64_t) { pool.parallel_for(8, 4, [](int64_t) {}); });  // within a piece
  CHECK_EQ(rehearsal.synchronizations(), 2);
}

TEST(rehearsal_gives_pieces_to_who_is_free_first) {
  ThreadPool pool(1);
  ManualClock clock;
  // The first piece takes 3, the others 1 each.
  const auto together = [&](int threads, int64_t pieces) {
    Rehearsal rehearsal(threads, clock);
    pool.parallel_for(pieces, threads, [&](int64_t i) { clock.advance(i == 0 ? 3 : 1); });
    CHECK_EQ(rehearsal.alone(), pieces + 2);
    return rehearsal.together();
  };
  CHECK_EQ(together(2, 4), 3);
  CHECK_EQ(together(3, 2), 3);
  CHECK_EQ(together(2, 8), 5);
  CHECK_EQ(together(4, 10), 3);
  CHECK_EQ(together(64, 200), 4);  // 199 pieces for 63 threads, one of which has four
}

TEST(synchronization_takes_time_where_there_are_threads) {
  ThreadPool one(1), two(2);
  CHECK_EQ(synchronization_nanos(one), 0);
  CHECK((synchronization_nanos(two) > 0) == (two.usable_size() == 2));
}
