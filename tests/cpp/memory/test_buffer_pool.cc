#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "check_error.h"
#include "memory/pool_state.h"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif
#include "memory/buffer_pool.h"

using namespace inferkit;

namespace {
constexpr auto kPoolExhausted = ErrorCode::kPoolExhausted;

void check_stats(const BufferPool& pool, size_t in_use, size_t cached, size_t outstanding, const char* where) {
  const PoolStats stats = pool.stats();
  if (stats.in_use_bytes == in_use && stats.cached_bytes == cached && stats.outstanding == outstanding) return;
  inferkit::testing::fail(where, 0,
                          cat("in use ", stats.in_use_bytes, ", cached ", stats.cached_bytes, ", outstanding ",
                              stats.outstanding, "; expected ", in_use, ", ", cached, ", ", outstanding));
}
template <class F>
void in_thread(F&& body) {
  std::thread(std::forward<F>(body)).join();
}
}  // namespace

TEST(pool_gives_aligned_memory_of_the_size) {
  BufferPool pool;
  std::vector<Buffer> buffers;
  for (size_t bytes : {0, 1, 63, 64, 65, 1000, 4096, 65536, 100000, 1 << 20, 5 << 20}) {
    Buffer buffer = pool.acquire(bytes);
    CHECK(static_cast<bool>(buffer));
    CHECK_EQ(buffer.size(), bytes);
    CHECK(buffer.capacity() >= bytes);
    CHECK_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % (bytes >= 65536 ? 4096 : 64), 0u);
    std::memset(buffer.data(), int(buffers.size()), bytes);
    buffers.push_back(std::move(buffer));
  }
  // No two share memory.
  for (size_t i = 0; i < buffers.size(); ++i) {
    for (const std::byte b : buffers[i].bytes()) {
      if (b != std::byte(i)) {
        CHECK(false);
        break;
      }
    }
  }
  CHECK_EQ(pool.stats().outstanding, buffers.size());
}

TEST(pool_counts_exactly) {
  BufferPool pool;
  check_stats(pool, 0, 0, 0, "fresh");
  {
    Buffer a = pool.acquire(100);
    Buffer b = pool.acquire(1000);
    check_stats(pool, 128 + 1024, 0, 2, "two out");
  }
  check_stats(pool, 0, 128 + 1024, 0, "both back");
  const Buffer c = pool.acquire(120);
  check_stats(pool, 128, 1024, 1, "one out of the cache");
  const PoolStats stats = pool.stats();
  CHECK_EQ(stats.hits, 1u);
  CHECK_EQ(stats.misses, 2u);
  CHECK_EQ(stats.peak_bytes, 128u + 1024u);
  CHECK_EQ(pool.trim(), 1024u);
  check_stats(pool, 128, 0, 1, "trimmed");
  CHECK_EQ(pool.trim(), 0u);
}

TEST(pool_warm_asks_the_system_for_nothing) {
  BufferPool pool;
  const auto round = [&] {
    std::vector<Buffer> out;
    for (size_t bytes : {10, 5000, 5000, 70000, 3 << 20, 9 << 20}) out.push_back(pool.acquire(bytes));
  };
  round();
  const uint64_t misses = pool.stats().misses;
  for (int i = 0; i < 100; ++i) round();
  CHECK_EQ(pool.stats().misses, misses);
}

TEST(buffer_moves_and_releases_once) {
  BufferPool pool;
  Buffer a = pool.acquire(10);
  std::byte* data = a.data();
  Buffer b = std::move(a);
  CHECK(!a && a.data() == nullptr && a.size() == 0 && a.capacity() == 0);
  CHECK(b.data() == data);
  a = pool.acquire(10);
  a = std::move(b);  // gives its own back
  CHECK(a.data() == data);
  Buffer& alias = a;
  a = std::move(alias);
  CHECK(a.data() == data);
  check_stats(pool, 64, 64, 1, "moved");
  a.release();
  a.release();
  CHECK(!a);
  check_stats(pool, 0, 128, 0, "released");
}

#if defined(__SANITIZE_ADDRESS__)
TEST(buffer_that_is_back_is_poisoned) {
  BufferPool pool;
  for (const size_t bytes : {100, 100000}) {
    Buffer buffer = pool.acquire(bytes);
    std::byte* data = buffer.data();
    CHECK(__asan_region_is_poisoned(data, bytes) == nullptr);
    CHECK(__asan_address_is_poisoned(data + bytes));  // only what was asked for may be touched
    buffer.release();
    CHECK(__asan_address_is_poisoned(data));
    CHECK(__asan_address_is_poisoned(data + bytes - 1));
    buffer = pool.acquire(bytes + 10);
    CHECK(buffer.data() == data);
    CHECK(__asan_region_is_poisoned(data, bytes + 10) == nullptr);
  }
}
#endif

TEST(buffer_outlives_the_pool) {
  Buffer buffer;
  {
    BufferPool pool;
    buffer = pool.acquire(100000);
    pool.acquire(50);
  }
  std::memset(buffer.data(), 1, buffer.size());
  BufferPool other;  // a pool at the same address is another pool
  check_stats(other, 0, 0, 0, "other");
  buffer.release();
  check_stats(other, 0, 0, 0, "other after");
}

TEST(pool_memory_ends_with_the_last_buffer) {
  const auto mapped = [](const std::byte* data) {
    unsigned char resident = 0;
    return ::mincore(const_cast<std::byte*>(data), 1, &resident) == 0;
  };
  Buffer out;
  const std::byte *cached = nullptr, *kept = nullptr;
  {
    BufferPool pool;
    cached = pool.acquire(1 << 20).data();
    out = pool.acquire(2 << 20);
    kept = out.data();
  }
  CHECK(mapped(kept));
  in_thread([&] { out.release(); });
  CHECK(!mapped(kept));
  CHECK(!mapped(cached));
  {
    BufferPool pool;
    cached = pool.acquire(1 << 20).data();
  }
  CHECK(!mapped(cached));
}

TEST(pool_peak_stays_after_trim) {
  BufferPool pool;
  {
    const Buffer a = pool.acquire(1024), b = pool.acquire(1024);
  }
  pool.trim();
  {
    const Buffer c = pool.acquire(512);
  }
  CHECK_EQ(pool.stats().peak_bytes, 2048u);
}

TEST(pool_caches_are_handed_on) {
  detail::PoolState* state = detail::PoolState::create({});
  detail::ThreadCache* first = state->adopt_cache();
  detail::ThreadCache* second = state->adopt_cache();
  CHECK(first != second);
  state->retire_cache(first);
  CHECK(state->adopt_cache() == first);  // as many caches as threads at once, not as threads ever
  state->close();
}

TEST(pool_cap_is_hard_and_says_what_to_do) {
  BufferPool pool({.max_bytes = 10240});
  std::vector<Buffer> out;
  for (int i = 0; i < 10; ++i) out.push_back(pool.acquire(1000));
  for (const char* part : {"1024 bytes asked for", "cap of 10240", "10240 are in use", "0 cached", "max_bytes"}) {
    CHECK_MESSAGE(kPoolExhausted, pool.acquire(1000), part);
  }
  check_stats(pool, 10240, 0, 10, "full");
  out.pop_back();
  out.push_back(pool.acquire(1024));
  out.clear();
  // Cached blocks of another class make room.
  const Buffer large = pool.acquire(10240);
  check_stats(pool, 10240, 0, 1, "one large");
  CHECK_MESSAGE(kPoolExhausted, pool.acquire(1), "exhausted");
  check_stats(pool, 10240, 0, 1, "refused");
  CHECK_MESSAGE(kPoolExhausted, BufferPool({.max_bytes = 10240}).acquire(10241), "exhausted");
  CHECK_EQ(pool.stats().max_bytes, 10240u);
}

TEST(pool_cap_takes_back_what_other_threads_cache) {
  BufferPool pool({.max_bytes = 4096});
  std::thread holder;
  std::atomic<int> step{0};
  holder = std::thread([&] {
    {
      const Buffer cached = pool.acquire(4096);
    }
    step = 1;
    step.notify_all();
    step.wait(1);
  });
  step.wait(0);
  check_stats(pool, 0, 4096, 0, "the other thread caches all");
  {
    const Buffer same = pool.acquire(4096);  // that very block
    CHECK_EQ(pool.stats().misses, 1u);
  }
  const Buffer other = pool.acquire(1000);
  check_stats(pool, 1024, 0, 1, "made room");
  step = 2;
  step.notify_all();
  holder.join();
}

TEST(pool_refuses_absurd_sizes) {
  BufferPool pool;
  CHECK_MESSAGE(kPoolExhausted, pool.acquire(SIZE_MAX), "no machine");
  CHECK_MESSAGE(kPoolExhausted, pool.acquire((size_t{1} << 46) + 1), "no machine");
  CHECK_THROWS(BufferPool({.max_bytes = 1}), std::invalid_argument);
  check_stats(pool, 0, 0, 0, "unchanged");
}

TEST(pool_without_memory_says_so) {
  BufferPool pool;
  CHECK_MESSAGE(kPoolExhausted, pool.acquire(size_t{1} << 46), "the system has no memory");
  check_stats(pool, 0, 0, 0, "unchanged");
  CHECK_EQ(pool.acquire(10).size(), 10u);
}

TEST(pool_leaks_by_tag_and_class) {
  BufferPool pool;
  const Buffer a = pool.acquire(100, "input");
  const Buffer b = pool.acquire(110, "input");
  const Buffer c = pool.acquire(5000);
  {
    const Buffer gone = pool.acquire(100, "gone");
  }
  const auto rows = pool.leaks();
  CHECK_EQ(rows.size(), 2u);
  CHECK_EQ(rows[0].tag, "");
  CHECK_EQ(rows[0].bytes, 5000u);
  CHECK_EQ(rows[0].capacity, 5120u);
  CHECK_EQ(rows[1].tag, "input");
  CHECK_EQ(rows[1].count, 2u);
  CHECK_EQ(rows[1].bytes, 210u);
}

TEST(pool_caches_are_bounded) {
  BufferPool pool({.thread_cache_bytes = 4096, .shared_cache_bytes = 8192});
  std::vector<Buffer> out;
  for (int i = 0; i < 100; ++i) out.push_back(pool.acquire(1024));
  out.clear();
  CHECK(pool.stats().cached_bytes <= 4096 + 8192);
  CHECK(pool.stats().cached_bytes >= 8192);
  CHECK_EQ(pool.stats().outstanding, 0u);
  {
    const Buffer large = pool.acquire(1 << 20);
  }  // beyond both: straight back to the system
  CHECK(pool.stats().cached_bytes <= 4096 + 8192);
  BufferPool none({.thread_cache_bytes = 0, .shared_cache_bytes = 0});
  {
    const Buffer buffer = none.acquire(100);
  }
  check_stats(none, 0, 0, 0, "no caches");
}

TEST(pool_other_thread_may_release) {
  BufferPool pool;
  for (int i = 0; i < 10; ++i) {
    Buffer buffer = pool.acquire(1000);
    in_thread([buffer = std::move(buffer)]() mutable { buffer.release(); });
  }
  check_stats(pool, 0, 1024, 0, "back through ended threads");  // their caches went to the shared one
  CHECK_EQ(pool.stats().misses, 1u);
}

TEST(pool_a_thread_that_only_releases_hoards_nothing) {
  BufferPool pool;
  std::vector<Buffer> handed;  // whose turn it is may touch it
  std::atomic<int> turn{0};    // 0: who acquires, 1: who releases, 2: the end
  std::thread releases([&] {
    for (int now; (now = turn.load()) != 2;) {
      if (now == 0) {
        std::this_thread::yield();
        continue;
      }
      handed.clear();
      turn = 0;
    }
  });
  for (int i = 0; i < 2000; ++i) {
    for (int n = 0; n < 8; ++n) handed.push_back(pool.acquire(1000));
    turn = 1;
    while (turn != 0) std::this_thread::yield();
  }
  turn = 2;
  releases.join();
  CHECK(pool.stats().misses < 200);  // what both sides keep, and no more with every buffer that passes
}

// Many threads that pass buffers of many sizes on to each other: what each of them keeps would add up, and go on adding
// up for as long as there is a size that some thread has not seen yet.
TEST(pool_has_no_more_of_a_size_than_were_out_at_once) {
  BufferPool pool;
  constexpr int kThreads = 6;
  std::vector<Buffer> handed;  // whose turn it is may touch it
  std::atomic<int> turn{-1};
  std::vector<std::thread> releases;
  for (int me = 0; me < kThreads; ++me) {
    releases.emplace_back([&, me] {
      for (int now; (now = turn.load()) != kThreads;) {
        if (now == me) {
          handed.clear();
          turn = -1;
        } else {
          std::this_thread::yield();
        }
      }
    });
  }
  constexpr size_t kSizes = 20, kAtOnce = 3;
  size_t held = 0;
  for (size_t size = 1; size <= kSizes; ++size) {
    for (int i = 0; i < 200; ++i) {
      for (size_t n = 0; n < kAtOnce; ++n) handed.push_back(pool.acquire(size * 10'000));
      turn = i % kThreads;
      while (turn != -1) std::this_thread::yield();
    }
    held += kAtOnce * size * 10'000;
  }
  turn = kThreads;
  for (std::thread& thread : releases) thread.join();
  const PoolStats stats = pool.stats();
  CHECK(stats.misses <= kSizes * kAtOnce);
  CHECK(stats.peak_bytes <= held + held / 4);  // a class is less than 25% above what was asked for
  CHECK_EQ(stats.outstanding, 0u);
  CHECK_EQ(stats.hits + stats.misses, kSizes * 200 * kAtOnce);
}

TEST(pool_ended_threads_hand_over_their_cache) {
  BufferPool pool;
  for (int i = 0; i < 5; ++i) in_thread([&] { const Buffer buffer = pool.acquire(2000); });
  check_stats(pool, 0, 2048, 0, "one block serves them all");
  CHECK_EQ(pool.stats().hits, 4u);
}

TEST(pool_released_by_a_thread_local_that_ends_last) {
  static BufferPool& pool = *BufferPool::process_default();
  const size_t before = pool.stats().outstanding;
  in_thread([] {
    thread_local Buffer kept;  // made before the thread's cache: destroyed after it
    static_cast<void>(kept.size());
    kept = pool.acquire(100);
  });
  CHECK_EQ(pool.stats().outstanding, before);
}

TEST(pool_many_pools_in_one_thread) {
  std::vector<std::unique_ptr<BufferPool>> pools;
  for (int i = 0; i < 20; ++i) pools.push_back(std::make_unique<BufferPool>());
  for (int round = 0; round < 3; ++round) {
    for (auto& pool : pools) const Buffer buffer = pool->acquire(64);
  }
  for (auto& pool : pools) {
    CHECK_EQ(pool->stats().misses, 1u);
    CHECK_EQ(pool->stats().hits, 2u);
  }
}

TEST(pool_default_is_one_and_stays) {
  CHECK(BufferPool::process_default().get() == BufferPool::process_default().get());
  CHECK_EQ(BufferPool::process_default()->acquire(10).size(), 10u);
}

#if !defined(__SANITIZE_THREAD__)  // TSan does not follow threads into a child
TEST(pool_works_in_a_forked_child) {
  BufferPool pool;
  std::atomic<bool> stop{false};
  std::vector<std::thread> busy;
  for (int i = 0; i < 2; ++i) {
    busy.emplace_back([&] {
      while (!stop) {
        const Buffer a = pool.acquire(100), b = pool.acquire(5 << 20);
        pool.trim();
      }
    });
  }
  for (int i = 0; i < 50; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(10);  // a lock that stays taken shows as a signal
      {
        const Buffer a = pool.acquire(100), b = pool.acquire(5 << 20);
      }
      pool.trim();
      ::_exit(pool.stats().cached_bytes == 0 ? 0 : 1);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    CHECK(WIFEXITED(status));
  }
  stop = true;
  for (auto& thread : busy) thread.join();
}
#endif
