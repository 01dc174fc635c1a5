// Answers that are kept, by the content of the requests that got them.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>

#include "batching/content.h"
#include "batching/intrusive_ptr.h"
#include "batching/request.h"
#include "memory/buffer_pool.h"
#include "platform/mutex.h"
#include "telemetry/counter.h"

namespace inferkit {

struct ResultCacheFigures {
  uint64_t hits = 0, misses = 0;
  uint64_t evictions = 0;  // those that made room for others
  size_t entries = 0;
  size_t bytes = 0;
};

/// Least recently used first out, within a number of bytes: those that the pool has set aside for inputs and outputs,
/// and what an entry takes besides. Answers of one model alone are in it, that of the latest generation that anybody
/// has asked for or kept one of: an answer of the model before finds no way in, and none out. Thread-safe; bytes are
/// compared, and copied, without the lock.
class ResultCache {
 public:
  /// Takes no more than half of what the pool may hold: the rest is for requests.
  ResultCache(std::span<const PortSpec> inputs, BufferPool& pool, size_t max_bytes);
  ~ResultCache();
  ResultCache(const ResultCache&) = delete;
  ResultCache& operator=(const ResultCache&) = delete;

  /// The answer of that model to an equal request, which begins with row 0; or null. Counted.
  IntrusivePtr<BatchOutputs> find(uint64_t hash, const Content& content, uint64_t generation) noexcept;
  /// Keeps the request's rows of `outputs`, a run of the model of that generation, and takes its inputs, which nobody
  /// may read any more. It keeps nothing where there is no memory, where it is larger than all there may be, or
  /// where another model has taken that one's place.
  void keep(Request& request, const BatchOutputs& outputs, int64_t first_row, uint64_t generation) noexcept;
  /// Another model runs: lets go of all answers of those before.
  void follow(uint64_t generation) noexcept;
  void clear() noexcept;

  ResultCacheFigures figures() const;

 private:
  struct Entry;
  using EntryRef = IntrusivePtr<Entry>;
  using Table = std::unordered_map<uint64_t, EntryRef>;

  /// Entries that have left it, on their way to be let go of without the lock.
  class Gone;
  bool begin_locked(uint64_t generation, Gone& gone) noexcept REQUIRES(mutex_);
  void link_locked(Entry& entry) noexcept REQUIRES(mutex_);
  void unlink_locked(Entry& entry) noexcept REQUIRES(mutex_);
  void drop_locked(Entry& entry, Gone& gone) noexcept REQUIRES(mutex_);

  const std::span<const PortSpec> inputs_;
  BufferPool& pool_;
  const size_t max_bytes_;
  Counter hits_, misses_, evictions_;
  mutable Mutex mutex_;  // held to find an entry, or to put one in
  Table table_ GUARDED_BY(mutex_);
  Entry* newest_ GUARDED_BY(mutex_) = nullptr;  // used last
  Entry* oldest_ GUARDED_BY(mutex_) = nullptr;
  size_t bytes_ GUARDED_BY(mutex_) = 0;
  uint64_t generation_ GUARDED_BY(mutex_) = 0;
};

}  // namespace inferkit
