#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "platform/clock.h"
#include "platform/thread_pool.h"
#include "test.h"

using namespace inferkit;

namespace {

/// Runs body over [0, count) and counts how often each index came.
bool each_index_once(ThreadPool& pool, int64_t count, int threads) {
  std::vector<int> seen(static_cast<size_t>(count));  // plain ints: an index that came twice at once is a race (TSan)
  pool.parallel_for(count, threads, [&](int64_t i) { ++seen[static_cast<size_t>(i)]; });
  return std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; });
}

}  // namespace

TEST(thread_pool_runs_each_index_once) {
  for (const int size : {1, 2, 5}) {
    ThreadPool pool(size);
    for (const int64_t count : {0, 1, 2, 3, 100, 1000}) {
      for (int repeat = 0; repeat < 50; ++repeat) CHECK(each_index_once(pool, count, size));
    }
    CHECK(each_index_once(pool, 100, 100));
    CHECK(each_index_once(pool, 100, 0));
  }
}

TEST(thread_pool_uses_its_threads) {
  ThreadPool pool(3);
  std::atomic<int> arrived{0};
  // Each body waits for the others, so this ends only if three threads run at once.
  pool.parallel_for(3, 3, [&](int64_t) {
    ++arrived;
    while (arrived.load() < 3) std::this_thread::yield();
  });
  CHECK_EQ(arrived.load(), 3);
}

TEST(thread_pool_gives_each_call_a_slot_of_its_own) {
  ThreadPool pool(4);
  for (const int threads : {2, 3, 4}) {
    std::vector<std::atomic<int>> users(static_cast<size_t>(threads));
    std::atomic<int> wrong{0};
    for (int repeat = 0; repeat < 50; ++repeat) {
      pool.parallel_for(64, threads, [&](int64_t, int64_t slot) {
        if (slot < 0 || slot >= threads) {
          ++wrong;
          return;
        }
        auto& here = users[static_cast<size_t>(slot)];
        if (++here != 1) ++wrong;
        std::this_thread::yield();
        --here;
      });
    }
    CHECK_EQ(wrong.load(), 0);
  }
}

TEST(thread_pool_threads_begin_with_shares_of_their_own) {
  ThreadPool pool(2);
  const auto caller = std::this_thread::get_id();
  for (int repeat = 0; repeat < 20; ++repeat) {
    std::atomic<int64_t> first_here{-1}, first_there{-1};
    // The first body of each thread waits for the other thread, so nobody can have helped anybody yet.
    pool.parallel_for(101, 2, [&](int64_t i) {
      auto& own = std::this_thread::get_id() == caller ? first_here : first_there;
      if (own.load() >= 0) return;
      own = i;
      while (first_here.load() < 0 || first_there.load() < 0) std::this_thread::yield();
    });
    CHECK_EQ(first_here.load(), 0);
    CHECK_EQ(first_there.load(), 51);  // of 101 the first share has 51
  }
}

TEST(thread_pool_who_is_done_helps) {
  ThreadPool pool(2);
  const auto caller = std::this_thread::get_id();
  std::atomic<int> here{0}, there{0};
  // The helper stays with the first index that it gets until the caller has done all the others.
  pool.parallel_for(40, 2, [&](int64_t) {
    if (std::this_thread::get_id() == caller) {
      while (there.load() == 0) std::this_thread::yield();
      ++here;
      return;
    }
    ++there;
    while (here.load() < 39) std::this_thread::yield();
  });
  CHECK_EQ(here.load(), 39);
  CHECK_EQ(there.load(), 1);
}

TEST(thread_pool_works_within_stretches) {
  ThreadPool pool(3);
  const ThreadPool::Stretch none(nullptr);
  {
    const ThreadPool::Stretch outer(&pool), inner(&pool);
    CHECK(each_index_once(pool, 100, 3));
  }
  CHECK(each_index_once(pool, 100, 3));
}

TEST(thread_pool_keeps_to_max_threads) {
  ThreadPool pool(4);
  std::atomic<int> at_once{0}, most{0};
  for (int repeat = 0; repeat < 20; ++repeat) {
    pool.parallel_for(64, 2, [&](int64_t) {
      const int now = ++at_once;
      for (int before = most.load(); before < now && !most.compare_exchange_weak(before, now);) {
      }
      std::this_thread::yield();
      --at_once;
    });
  }
  CHECK(most.load() <= 2);
}

TEST(thread_pool_runs_nested_calls_inline) {
  ThreadPool pool(3);
  std::atomic<int> total{0};
  std::atomic<bool> same_thread{true};
  pool.parallel_for(4, 3, [&](int64_t) {
    const auto outer = std::this_thread::get_id();
    pool.parallel_for(5, 3, [&](int64_t) {
      ++total;
      if (std::this_thread::get_id() != outer) same_thread = false;
    });
  });
  CHECK_EQ(total.load(), 20);
  CHECK(same_thread.load());
}

TEST(thread_pool_serves_many_callers) {
  ThreadPool pool(3);
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; ++t) {
    callers.emplace_back([&] {
      for (int i = 0; i < 500; ++i) {
        if (!each_index_once(pool, 17, 3)) ++wrong;
      }
    });
  }
  for (auto& caller : callers) caller.join();
  CHECK_EQ(wrong.load(), 0);
}

// Helpers fall asleep between the rounds, at every possible moment of their falling asleep.
TEST(thread_pool_wakes_sleepers) {
  ThreadPool pool(3);
  for (int round = 0; round < 200; ++round) {
    CHECK(each_index_once(pool, 8, 3));
    const Nanos end = SteadyClock::instance().now() + round * 1000;
    while (SteadyClock::instance().now() < end) {
    }
  }
}

#if !defined(__SANITIZE_THREAD__)
TEST(thread_pool_starts_afresh_after_fork) {
  ThreadPool pool(3);
  CHECK(each_index_once(pool, 50, 3));
  CHECK(each_index_once(ThreadPool::process(), 50, 8));
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);  // a child that hangs dies
    std::atomic<int> arrived{0};
    pool.parallel_for(3, 3, [&](int64_t) {
      ++arrived;
      while (arrived.load() < 3) std::this_thread::yield();
    });
    const bool good = each_index_once(pool, 50, 3) && each_index_once(ThreadPool::process(), 50, 8);
    _exit(good ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK(each_index_once(pool, 50, 3));
}
#endif

TEST(thread_pool_of_the_process_is_one) {
  CHECK_EQ(&ThreadPool::process(), &ThreadPool::process());
  CHECK(ThreadPool::process().size() >= 1);
}
