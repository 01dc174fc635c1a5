// What a BufferPool and its buffers share. Internal to memory/.
#pragma once
#include <sched.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "memory/buffer_pool.h"
#include "memory/pool_block.h"

namespace inferkit::detail {

/// Guards a thread's own free lists: nearly always free, held for nanoseconds. Acquire on lock and release on unlock
/// order what it guards. Yields while it waits, as the holder may have been descheduled.
class SpinLock {
 public:
  void lock() noexcept {
    while (locked_.exchange(true, std::memory_order_acquire)) ::sched_yield();
  }
  void unlock() noexcept { locked_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> locked_{false};
};

/// What went through one cache. A buffer may come back through another one, so only sums over all caches mean
/// something; unsigned arithmetic wraps and comes out right.
struct PoolCounters {
  uint64_t hits = 0;
  uint64_t misses = 0;
  uint64_t back = 0;
  size_t bytes = 0;  // out

  void hit(size_t n) { ++hits, bytes += n; }
  void miss(size_t n) { ++misses, bytes += n; }
  void released(size_t n) { ++back, bytes -= n; }
  size_t outstanding() const { return hits + misses - back; }
  PoolCounters& operator+=(const PoolCounters& o) {
    hits += o.hits, misses += o.misses, back += o.back, bytes += o.bytes;
    return *this;
  }
};

/// How many free blocks of each class a thread keeps for itself. One that releases what others acquire would hoard what
/// they need, so whoever had to come for a block halves it; finding nothing in its own cache raises it again.
class KeepLimits {
 public:
  static constexpr uint8_t kMost = 16;

  KeepLimits() { reset(); }
  void reset() { limits_.fill(kMost); }
  uint32_t of(size_t size_class) const { return limits_[size_class]; }
  void robbed(size_t size_class) { limits_[size_class] /= 2; }
  void lacked(size_t size_class) { limits_[size_class] += limits_[size_class] < kMost; }

 private:
  std::array<uint8_t, kSizeClasses> limits_;
};

/// Free blocks of one thread (of one after another: a thread's cache is handed on when it ends).
struct alignas(64) ThreadCache {
  SpinLock lock;  // the owner's, and that of whoever empties, counts or robs caches; guards what follows
  FreeLists free;
  KeepLimits keep;
  PoolCounters counters;
};

/// Locks are taken in this order: caches_mutex_, a ThreadCache's, shared_mutex_; memory goes to and comes from the
/// system under none of them.
class PoolState : public std::enable_shared_from_this<PoolState> {
 public:
  /// Owns itself until close() was called and the last buffer is back.
  static PoolState* create(PoolOptions options);
  explicit PoolState(PoolOptions options);
  ~PoolState();
  void close() noexcept;

  PoolBlock* acquire(size_t bytes, const char* tag);
  void release(PoolBlock* block) noexcept;

  PoolStats stats();
  size_t trim();
  std::vector<LeakRow> leaks();
  const PoolOptions& options() const { return options_; }
  uint64_t id() const { return id_; }

  /// A cache for the calling thread; retire() takes it back when the thread ends.
  ThreadCache* adopt_cache();
  void retire_cache(ThreadCache* cache) noexcept;

  /// All locks at once: around fork(), so that the child finds them free and every list whole; and to count what is
  /// free at one instant.
  void lock() noexcept;
  void unlock() noexcept;

 private:
  PoolBlock* pop_free(size_t size_class);
  void refill_locked(ThreadCache* cache, size_t size_class);
  PoolBlock* take_from_others(size_t size_class) noexcept;
  PoolBlock* allocate(size_t size_class);
  bool reserve(size_t bytes);
  PoolBlock* make_room(size_t size_class);
  void count_miss(size_t bytes);
  void share_locked(PoolBlock* block, DroppedBlocks* dropped) noexcept;
  void drop_locked(PoolBlock* block, DroppedBlocks* dropped) noexcept;
  void spill(ThreadCache* cache, size_t size_class, DroppedBlocks* dropped) noexcept;
  void empty_cache_locked(ThreadCache* cache, DroppedBlocks* dropped) noexcept;
  void empty_caches(DroppedBlocks* dropped) noexcept;
  void drop_reference() noexcept;

  const PoolOptions options_;
  const uint64_t id_;                // never used again in this process, unlike an address
  std::shared_ptr<PoolState> self_;  // what keeps this alive; dropped by whoever brings remaining_ to 0

  std::mutex caches_mutex_;  // guards the list of caches; taken when a thread comes or goes and by the slow paths
  std::vector<std::unique_ptr<ThreadCache>> caches_;
  std::vector<ThreadCache*> idle_caches_;

  std::mutex shared_mutex_;  // guards what follows; taken where a thread's own cache is empty or full
  FreeLists shared_;
  std::vector<std::unique_ptr<PoolBlock>> blocks_;  // every block, free or out
  size_t held_bytes_ = 0;                           // from the system
  size_t peak_held_bytes_ = 0;
  PoolCounters counters_;  // of threads that have no cache any more

  // Nothing that a hit writes is shared: a count of references would be. Buffers are counted only from close() on.
  bool closed_ = false;  // written under all locks, read under any of them
  std::atomic<size_t> remaining_{0};
};

/// The calling thread's cache, made at its first use; nullptr where the thread is ending or memory is out.
ThreadCache* this_thread_cache(PoolState* state) noexcept;

}  // namespace inferkit::detail
