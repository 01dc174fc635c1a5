// Memory for the hot path: size classes, per-thread caches, a hard cap. After warm-up it asks the system for nothing.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "memory/buffer.h"

namespace inferkit {

namespace detail {
class PoolState;
}

struct PoolOptions {
  /// Hard cap on the bytes held from the system, in use and cached together; 0 for none.
  size_t max_bytes = 0;
  /// Free memory that one thread keeps for itself. Larger buffers, and what a thread has too much of, go to the cache
  /// that all threads share.
  size_t thread_cache_bytes = size_t{4} << 20;
  /// Free memory that the shared cache keeps; what is beyond goes back to the system.
  size_t shared_cache_bytes = size_t{256} << 20;
};

/// Bytes are those set aside (the size class), not those asked for. Figures of one instant.
struct PoolStats {
  size_t in_use_bytes = 0;
  size_t cached_bytes = 0;
  size_t peak_bytes = 0;   // the most held from the system at once, in use and cached: what a cap has to allow
  size_t max_bytes = 0;    // the cap; 0 for none
  uint64_t hits = 0;       // acquisitions that a cache served
  uint64_t misses = 0;     // acquisitions that asked the system
  size_t outstanding = 0;  // buffers that are out
};

/// What is out, by tag and size class.
struct LeakRow {
  std::string tag;  // "" where acquire was given none
  size_t capacity = 0;
  size_t count = 0;
  size_t bytes = 0;  // asked for, summed over the buffers
};

/// Thread-safe. A hit in the thread's own cache takes no contended lock and allocates nothing: others take that lock
/// only in trim(), stats() and where the cap is reached. Buffers that are out keep the pool's memory alive after the
/// pool is destroyed; all of it is freed with the last. Safe across fork.
class BufferPool {
 public:
  /// Throws std::invalid_argument where the options contradict each other.
  explicit BufferPool(PoolOptions options = {});
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  /// At least `bytes` of uninitialised memory. `tag` names the user in leaks() and must live as long as the program
  /// (a string literal). Throws Error(kPoolExhausted) where the cap, or the system, does not allow it even after every
  /// cache has been emptied.
  Buffer acquire(size_t bytes, const char* tag = nullptr);

  PoolStats stats() const;
  /// Gives all cached memory back to the system, other threads' caches included; returns how many bytes.
  size_t trim();
  /// The buffers that are out, most bytes first.
  std::vector<LeakRow> leaks() const;
  const PoolOptions& options() const;

  /// The pool that the whole process shares, without a cap; lives until the process ends.
  static const std::shared_ptr<BufferPool>& process_default();

 private:
  detail::PoolState* state_;  // lives until this pool and its last buffer are gone
};

}  // namespace inferkit
