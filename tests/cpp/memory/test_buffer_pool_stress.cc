// Many threads on one pool: nothing shared twice, nothing lost, the cap never passed, the books exact at the end.
#include <atomic>
#include <cstring>
#include <deque>
#include <mutex>
#include <random>
#include <thread>

#include "base/error.h"
#include "memory/buffer_pool.h"
#include "test.h"

using namespace inferkit;

namespace {

unsigned print_seed() {
  const unsigned seed = std::random_device()();
  std::cout << "  seed " << seed << "\n";
  return seed;
}

// A buffer stamped by its holder; a second holder of the same memory would overwrite the stamp.
struct Stamped {
  Buffer buffer;
  uint64_t stamp = 0;

  Stamped(Buffer b, uint64_t s) : buffer(std::move(b)), stamp(s) {
    if (buffer.size() >= 16) {
      std::memcpy(buffer.data(), &stamp, 8);
      std::memcpy(buffer.data() + buffer.size() - 8, &stamp, 8);
    }
  }
  bool intact() const {
    return buffer.size() < 16 || (std::memcmp(buffer.data(), &stamp, 8) == 0 &&
                                  std::memcmp(buffer.data() + buffer.size() - 8, &stamp, 8) == 0);
  }
};

struct Outcome {
  std::atomic<uint64_t> broken{0}, exhausted{0}, above_cap{0};
};

void stress(PoolOptions options, int threads, int turns) {
  const unsigned seed = print_seed();
  BufferPool pool(options);
  std::mutex mutex;  // guards handed_over
  std::deque<Stamped> handed_over;
  Outcome outcome;
  std::atomic<uint64_t> next_stamp{1};
  const auto body = [&](unsigned id) {
    std::mt19937 random(seed + id);
    std::deque<Stamped> mine;
    const auto drop = [&](Stamped stamped) { outcome.broken += !stamped.intact(); };
    for (int turn = 0; turn < turns; ++turn) {
      const unsigned what = random() % 16;
      if (what < 7) {
        try {
          const size_t bytes = size_t{1} << random() % 17;
          mine.emplace_back(pool.acquire(bytes + random() % bytes, "stress"), next_stamp++);
        } catch (const Error& error) {
          outcome.exhausted += error.code() == ErrorCode::kPoolExhausted;
          mine.clear();
        }
      } else if (what < 11 && !mine.empty()) {
        drop(std::move(mine.front()));
        mine.pop_front();
      } else if (what < 15) {  // to another thread, and from one
        const std::lock_guard lock(mutex);
        if (!mine.empty()) {
          handed_over.push_back(std::move(mine.back()));
          mine.pop_back();
        }
        if (handed_over.size() > 8) {
          drop(std::move(handed_over.front()));
          handed_over.pop_front();
        }
      } else if (random() % 64 == 0) {
        pool.trim();
      } else if (random() % 8 == 0) {
        const PoolStats stats = pool.stats();
        outcome.above_cap += options.max_bytes != 0 && stats.peak_bytes > options.max_bytes;
        for (const LeakRow& row : pool.leaks()) outcome.broken += row.tag != "stress";
      }
    }
    for (Stamped& stamped : mine) outcome.broken += !stamped.intact();
  };
  // Two generations, so that caches are handed on.
  for (unsigned generation = 0; generation < 2; ++generation) {
    std::vector<std::thread> running;
    for (int i = 0; i < threads; ++i) running.emplace_back(body, generation * 100 + static_cast<unsigned>(i));
    for (auto& thread : running) thread.join();
  }
  handed_over.clear();
  CHECK_EQ(outcome.broken.load(), 0u);
  CHECK_EQ(outcome.above_cap.load(), 0u);
  if (options.max_bytes == 0) CHECK_EQ(outcome.exhausted.load(), 0u);
  const PoolStats stats = pool.stats();
  CHECK_EQ(stats.outstanding, 0u);
  CHECK_EQ(stats.in_use_bytes, 0u);
  CHECK(pool.leaks().empty());
  CHECK_EQ(pool.trim(), stats.cached_bytes);
  CHECK_EQ(pool.stats().cached_bytes, 0u);
}

}  // namespace

TEST(stress_roomy_pool) { stress({}, 4, 20000); }
TEST(stress_tight_cap) { stress({.max_bytes = 1 << 20, .thread_cache_bytes = 64 << 10}, 4, 20000); }
TEST(stress_tiny_caches) { stress({.thread_cache_bytes = 8 << 10, .shared_cache_bytes = 64 << 10}, 4, 20000); }

TEST(stress_cap_of_one_buffer_each) {
  // As many buffers as threads fit: nobody may ever be refused, wherever the free ones are cached.
  constexpr int kThreads = 4;
  BufferPool pool({.max_bytes = kThreads * 1024});
  std::atomic<int> refused{0};
  std::vector<std::thread> running;
  for (int i = 0; i < kThreads; ++i) {
    running.emplace_back([&, i] {
      for (int turn = 0; turn < 20000; ++turn) {
        try {
          const Buffer buffer = pool.acquire(static_cast<size_t>(i + turn) % 2 ? 1024 : 512);
        } catch (const Error&) {
          ++refused;
        }
      }
    });
  }
  for (auto& thread : running) thread.join();
  CHECK_EQ(refused.load(), 0);
  CHECK(pool.stats().peak_bytes <= kThreads * 1024);
}

TEST(stress_pools_end_while_their_buffers_live) {
  const unsigned seed = print_seed();
  for (unsigned round = 0; round < 200; ++round) {
    auto pool = std::make_unique<BufferPool>();
    std::vector<std::thread> running;
    std::atomic<int> started{0};
    for (unsigned i = 0; i < 3; ++i) {
      running.emplace_back([&, i] {
        std::mt19937 random(seed + round * 3 + i);
        std::vector<Buffer> out;
        for (int turn = 0; turn < 10; ++turn) out.push_back(pool->acquire(random() % 5000));
        ++started;
        while (!out.empty()) out.pop_back();  // while the pool is destroyed, perhaps
      });
    }
    while (started < 3) std::this_thread::yield();
    pool.reset();
    for (auto& thread : running) thread.join();
  }
}
