#include "memory/pool_state.h"

#include <algorithm>
#include <map>
#include <new>
#include <stdexcept>
#include <utility>

#include "base/counted.h"
#include "base/error.h"
#include "memory/pool_fork.h"

namespace inferkit::detail {
namespace {

using Lock = std::lock_guard<std::mutex>;
using CacheLock = std::lock_guard<SpinLock>;

// A thread that finds its own list empty takes this many from the shared one, so that a thread which only acquires
// does not meet the threads which only release at every turn.
constexpr int kRefill = 8;

uint64_t next_id() {
  static std::atomic<uint64_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;  // relaxed: only that it is unique matters
}

}  // namespace

PoolState* PoolState::create(PoolOptions options) {
  auto state = std::make_shared<PoolState>(options);
  register_for_fork(state.get());
  state->self_ = state;
  return state.get();
}

PoolState::PoolState(PoolOptions options) : options_(options), id_(next_id()) {}

PoolState::~PoolState() { unregister_for_fork(this); }

void PoolState::close() noexcept {
  {
    const std::lock_guard lock(*this);
    PoolCounters sum = counters_;
    for (const auto& cache : caches_) sum += cache->counters;
    // One more for this call, which still has locks to release when the last buffer comes back.
    remaining_.store(sum.outstanding() + 1, std::memory_order_relaxed);  // the locks order it before any release
    closed_ = true;
  }
  drop_reference();
}

PoolBlock* PoolState::acquire(size_t bytes, const char* tag) {
  if (bytes > kMaxBlockBytes) {
    throw Error(ErrorCode::kPoolExhausted,
                cat("a buffer of ", counted(bytes, "byte"), " was asked for; no machine has that much"));
  }
  const size_t wanted = size_class(bytes);
  PoolBlock* block = pop_free(wanted);
  if (!block) block = take_from_others(wanted);
  if (!block) block = allocate(wanted);
  block->open(bytes);
  block->requested.store(bytes, std::memory_order_relaxed);
  block->tag.store(tag ? tag : "", std::memory_order_relaxed);
  return block;
}

void PoolState::release(PoolBlock* block) noexcept {
  block->close();
  block->tag.store(nullptr, std::memory_order_relaxed);
  bool closed = false;
  {
    DroppedBlocks dropped;
    const size_t size_class = block->size_class;
    const size_t bytes = class_bytes(size_class);
    if (ThreadCache* cache = this_thread_cache(this)) {
      const CacheLock lock(cache->lock);
      cache->counters.released(bytes);
      if (bytes <= options_.thread_cache_bytes) {
        cache->free.push(block);
        if (cache->free.bytes() > options_.thread_cache_bytes ||
            cache->free.count(size_class) > cache->keep.of(size_class)) {
          spill(cache, size_class, &dropped);
        }
      } else {
        const Lock shared(shared_mutex_);
        share_locked(block, &dropped);
      }
      closed = closed_;
    } else {
      const Lock shared(shared_mutex_);
      counters_.released(bytes);
      share_locked(block, &dropped);
      closed = closed_;
    }
  }
  // Where the pool was open, close() takes the lock that was just released: it has counted this buffer as back, and
  // *this may be gone by now. Where it was closed, this buffer holds one of the references.
  if (closed) drop_reference();
}

PoolBlock* PoolState::pop_free(size_t size_class) {
  ThreadCache* cache = this_thread_cache(this);
  if (!cache) {
    const Lock shared(shared_mutex_);
    PoolBlock* block = shared_.pop(size_class);
    if (block) counters_.hit(class_bytes(size_class));
    return block;
  }
  const CacheLock lock(cache->lock);
  PoolBlock* block = cache->free.pop(size_class);
  if (!block) {
    cache->keep.lacked(size_class);
    const Lock shared(shared_mutex_);
    block = shared_.pop(size_class);
    if (block) refill_locked(cache, size_class);
  }
  if (block) cache->counters.hit(class_bytes(size_class));
  return block;
}

void PoolState::refill_locked(ThreadCache* cache, size_t size_class) {
  const size_t room = options_.thread_cache_bytes / 4;
  for (int i = 1; i < kRefill && cache->free.bytes() + class_bytes(size_class) <= room; ++i) {
    PoolBlock* more = shared_.pop(size_class);
    if (!more) return;
    cache->free.push(more);
  }
}

// The slow path begins: as long as any thread keeps a free block of the class, none comes from the system. So there are
// no more of a class than were out at one time (but for those that come back while this looks), however many threads
// pass them on, and memory stops growing once that has been seen.
PoolBlock* PoolState::take_from_others(size_t size_class) noexcept {
  DroppedBlocks dropped;
  const Lock caches(caches_mutex_);
  for (const auto& cache : caches_) {
    const CacheLock lock(cache->lock);
    PoolBlock* block = cache->free.pop(size_class);
    if (!block) continue;
    cache->keep.robbed(size_class);
    cache->counters.hit(class_bytes(size_class));
    const Lock shared(shared_mutex_);  // the others go where they are found sooner
    while (PoolBlock* more = cache->free.pop(size_class)) share_locked(more, &dropped);
    return block;
  }
  return nullptr;
}

// It goes on: memory from the system, under no lock.
PoolBlock* PoolState::allocate(size_t size_class) {
  const size_t bytes = class_bytes(size_class);
  for (bool emptied = false;; emptied = true) {
    if (!reserve(bytes)) {
      if (PoolBlock* block = make_room(size_class)) return block;
    }
    try {
      auto block = std::make_unique<PoolBlock>(this, size_class);
      PoolBlock* out = block.get();
      {
        const Lock shared(shared_mutex_);
        out->index = static_cast<uint32_t>(blocks_.size());
        blocks_.push_back(std::move(block));
        peak_held_bytes_ = std::max(peak_held_bytes_, held_bytes_);
      }
      count_miss(bytes);
      return out;
    } catch (const std::bad_alloc&) {
      {
        const Lock shared(shared_mutex_);
        held_bytes_ -= bytes;
      }
      if (emptied) {
        const PoolStats now = stats();
        throw Error(ErrorCode::kPoolExhausted,
                    cat("the system has no memory for a buffer of ", counted(bytes, "byte"), "; the pool has ",
                        now.in_use_bytes, " in use and ", now.cached_bytes,
                        " cached. Release buffers (leaks() lists them), or use less"));
      }
      trim();
    }
  }
}

bool PoolState::reserve(size_t bytes) {
  const Lock shared(shared_mutex_);
  if (options_.max_bytes != 0 && bytes > options_.max_bytes - held_bytes_) return false;
  held_bytes_ += bytes;
  return true;
}

// Where the cap is reached: gives a free block of the class, whoever caches it; or drops free blocks until there is
// room, reserves it and gives nullptr. With every lock held, so that it refuses only what really does not fit.
PoolBlock* PoolState::make_room(size_t size_class) {
  const size_t bytes = class_bytes(size_class);
  DroppedBlocks dropped;
  size_t cached = 0;
  size_t in_use = 0;
  {
    const std::lock_guard lock(*this);
    std::vector<FreeLists*> lists = {&shared_};
    for (const auto& cache : caches_) lists.push_back(&cache->free);
    for (FreeLists* list : lists) {
      cached += list->bytes();
      if (PoolBlock* block = list->pop(size_class)) {
        counters_.hit(bytes);
        return block;
      }
    }
    in_use = held_bytes_ - cached;
    if (bytes <= options_.max_bytes - in_use) {
      for (size_t i = kSizeClasses; i-- > 0;) {
        for (FreeLists* list : lists) {
          while (bytes > options_.max_bytes - held_bytes_) {
            PoolBlock* block = list->pop(i);
            if (!block) break;
            drop_locked(block, &dropped);
          }
        }
      }
      held_bytes_ += bytes;
      return nullptr;
    }
  }
  throw Error(ErrorCode::kPoolExhausted,
              cat("the buffer pool is exhausted: ", counted(bytes, "byte"), " asked for, and of the cap of ",
                  counted(options_.max_bytes, "byte"), " ", in_use, " are in use and ", cached,
                  " cached. Release buffers (leaks() lists them), send smaller batches, or raise max_bytes"));
}

void PoolState::count_miss(size_t bytes) {
  if (ThreadCache* cache = this_thread_cache(this)) {
    const CacheLock lock(cache->lock);
    cache->counters.miss(bytes);
  } else {
    const Lock shared(shared_mutex_);
    counters_.miss(bytes);
  }
}

void PoolState::share_locked(PoolBlock* block, DroppedBlocks* dropped) noexcept {
  if (shared_.bytes() + class_bytes(block->size_class) <= options_.shared_cache_bytes) {
    shared_.push(block);
  } else {
    drop_locked(block, dropped);
  }
}

void PoolState::drop_locked(PoolBlock* block, DroppedBlocks* dropped) noexcept {
  std::unique_ptr<PoolBlock> gone = std::move(blocks_[block->index]);
  if (blocks_.back()) {  // not itself the last: the last takes its place
    blocks_[block->index] = std::move(blocks_.back());
    blocks_[block->index]->index = block->index;
  }
  blocks_.pop_back();
  held_bytes_ -= class_bytes(block->size_class);
  dropped->add(std::move(gone));
}

// A thread's cache is too full, of one class or in all: half of the room is made free, from the class that it has most
// likely too much of.
void PoolState::spill(ThreadCache* cache, size_t size_class, DroppedBlocks* dropped) noexcept {
  const Lock shared(shared_mutex_);
  const bool full = cache->free.bytes() > options_.thread_cache_bytes;
  const uint32_t left = cache->keep.of(size_class) / 2;
  while (full ? cache->free.bytes() > options_.thread_cache_bytes / 2 : cache->free.count(size_class) > left) {
    PoolBlock* block = cache->free.pop(size_class);
    if (!block) break;
    share_locked(block, dropped);
  }
  if (cache->free.bytes() > options_.thread_cache_bytes) empty_cache_locked(cache, dropped);
}

void PoolState::empty_cache_locked(ThreadCache* cache, DroppedBlocks* dropped) noexcept {
  for (size_t i = 0; i < kSizeClasses && cache->free.bytes() != 0; ++i) {
    while (PoolBlock* block = cache->free.pop(i)) share_locked(block, dropped);
  }
}

void PoolState::empty_caches(DroppedBlocks* dropped) noexcept {
  const Lock caches(caches_mutex_);
  for (const auto& cache : caches_) {
    const CacheLock lock(cache->lock);
    if (cache->free.bytes() == 0) continue;
    const Lock shared(shared_mutex_);
    empty_cache_locked(cache.get(), dropped);
  }
}

size_t PoolState::trim() {
  DroppedBlocks dropped;
  empty_caches(&dropped);
  const Lock shared(shared_mutex_);
  for (size_t i = 0; i < kSizeClasses; ++i) {
    while (PoolBlock* block = shared_.pop(i)) drop_locked(block, &dropped);
  }
  return dropped.bytes();
}

PoolStats PoolState::stats() {
  const std::lock_guard lock(*this);  // figures of one instant
  PoolCounters sum = counters_;
  for (const auto& cache : caches_) sum += cache->counters;
  PoolStats out;
  out.in_use_bytes = sum.bytes;
  out.cached_bytes = held_bytes_ - std::min(held_bytes_, out.in_use_bytes);
  out.peak_bytes = peak_held_bytes_;
  out.max_bytes = options_.max_bytes;
  out.hits = sum.hits;
  out.misses = sum.misses;
  out.outstanding = sum.outstanding();
  return out;
}

std::vector<LeakRow> PoolState::leaks() {
  std::map<std::pair<std::string, size_t>, LeakRow> rows;
  {
    const Lock shared(shared_mutex_);
    for (const auto& block : blocks_) {
      const char* tag = block->tag.load(std::memory_order_relaxed);
      if (!tag) continue;
      LeakRow& row = rows[{tag, class_bytes(block->size_class)}];
      ++row.count;
      row.bytes += block->requested.load(std::memory_order_relaxed);
    }
  }
  std::vector<LeakRow> out;
  for (auto& [key, row] : rows) out.push_back({key.first, key.second, row.count, row.bytes});
  std::stable_sort(out.begin(), out.end(), [](const LeakRow& a, const LeakRow& b) { return a.bytes > b.bytes; });
  return out;
}

ThreadCache* PoolState::adopt_cache() {
  const Lock caches(caches_mutex_);
  if (idle_caches_.empty()) {
    idle_caches_.reserve(caches_.size() + 1);  // so that retire_cache allocates nothing
    caches_.push_back(std::make_unique<ThreadCache>());
    return caches_.back().get();
  }
  ThreadCache* cache = idle_caches_.back();
  idle_caches_.pop_back();
  return cache;
}

void PoolState::retire_cache(ThreadCache* cache) noexcept {
  DroppedBlocks dropped;
  const Lock caches(caches_mutex_);
  const CacheLock lock(cache->lock);
  const Lock shared(shared_mutex_);
  empty_cache_locked(cache, &dropped);
  cache->keep.reset();
  idle_caches_.push_back(cache);
}

void PoolState::lock() noexcept {
  caches_mutex_.lock();
  for (const auto& cache : caches_) cache->lock.lock();
  shared_mutex_.lock();
}

void PoolState::unlock() noexcept {
  shared_mutex_.unlock();
  for (const auto& cache : caches_) cache->lock.unlock();
  caches_mutex_.unlock();
}

void PoolState::drop_reference() noexcept {
  // Release: what this thread did comes before the end of *this; acquire: so does what all the others did.
  if (remaining_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    const std::shared_ptr<PoolState> last = std::move(self_);
  }
}

}  // namespace inferkit::detail
