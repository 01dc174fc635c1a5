#include "device/cuda/cuda_pool.h"

#include <algorithm>
#include <map>
#include <string>

#include "base/cat.h"
#include "base/counted.h"
#include "base/error.h"

namespace inferkit {
namespace {

constexpr size_t kBlockAlign = 256;

size_t held(const PoolStats& stats) { return stats.in_use_bytes + stats.cached_bytes; }
std::string_view name_of(CudaPool::Kind kind) {
  return kind == CudaPool::Kind::kDevice ? "memory of the CUDA device" : "pinned memory of the host";
}
std::string figures(const PoolStats& stats) {
  return cat(counted(stats.in_use_bytes, "byte is", "bytes are"), " in use by inferkit and ", stats.cached_bytes,
             " free in its pool");
}
constexpr std::string_view kRemedy =
    "; run smaller batches, fewer shapes or fewer models side by side (inferkit.cuda.leaks() tells who has it)";

}  // namespace

CudaPool::~CudaPool() {
  if (process_.is_this()) trim();
}

CudaBlock CudaPool::take(size_t bytes, const char* tag, bool once) {
  process_.require();
  if (bytes > detail::kMaxBlockBytes) {
    throw Error(ErrorCode::kPoolExhausted, cat(bytes, " bytes of ", name_of(kind_), " were asked for"));
  }
  const size_t wanted = std::max(bytes, kBlockAlign);
  const size_t capacity =
      once ? (wanted + kBlockAlign - 1) / kBlockAlign * kBlockAlign : detail::class_bytes(detail::size_class(wanted));
  std::unique_ptr<State> block;
  for (bool emptied = false;; emptied = true) {
    State* dropped = nullptr;
    PoolStats now;
    bool fits = true;
    {
      const std::scoped_lock lock(mutex_);
      if (State* found = once ? nullptr : pop_locked(capacity)) {
        ++stats_.hits;
        use_locked(found, bytes, tag);
        return {this, found};
      }
      if (const size_t most = stats_.max_bytes) {
        fits = capacity <= most && stats_.in_use_bytes <= most - capacity;
        if (fits) shrink_locked(most - capacity, dropped);
      }
      if (fits) stats_.in_use_bytes += capacity;
      now = stats_;
    }
    to_backend(dropped);
    if (!fits) {
      throw Error(ErrorCode::kPoolExhausted,
                  cat("there is no room for ", counted(bytes, "more byte"), " of ", name_of(kind_), ": of the cap of ",
                      counted(now.max_bytes, "byte"), ", ", figures(now), kRemedy,
                      ", or raise the cap with inferkit.cuda.limit_memory()"));
    }
    try {
      if (!block) block = std::make_unique<State>();
      block->data = from_backend(capacity);
    } catch (const Error& error) {
      {
        const std::scoped_lock lock(mutex_);
        stats_.in_use_bytes -= capacity;
        now = stats_;
      }
      if (error.code() != ErrorCode::kPoolExhausted) throw;
      if (!emptied && trim() > 0) continue;
      throw Error(error.code(), cat(error.what(), "; ", figures(now), kRemedy));
    } catch (...) {
      const std::scoped_lock lock(mutex_);
      stats_.in_use_bytes -= capacity;
      throw;
    }
    block->capacity = capacity;
    block->once = once;
    const std::scoped_lock lock(mutex_);
    stats_.in_use_bytes -= capacity;  // it was set aside; use_locked counts it
    ++stats_.misses;
    use_locked(block.get(), bytes, tag);
    stats_.peak_bytes = std::max(stats_.peak_bytes, held(stats_));
    return {this, block.release()};
  }
}

void CudaPool::give_back(State* block) noexcept {
  if (!process_.is_this()) return;  // it is the parent's, and so is the lock
  State* dropped = nullptr;
  {
    const std::scoped_lock lock(mutex_);
    (block->before ? block->before->next : used_) = block->next;
    if (block->next) block->next->before = block->before;
    block->before = block->next = nullptr;
    stats_.in_use_bytes -= block->capacity;
    --stats_.outstanding;
    const bool beyond = stats_.cached_bytes + block->capacity > kMostCached ||
                        (stats_.max_bytes && held(stats_) + block->capacity > stats_.max_bytes);
    if (block->once || beyond) {
      dropped = block;
    } else {
      if (kind_ == Kind::kDevice) backend_.forget(block->data, block->capacity);
      State*& first = free_[detail::size_class(block->capacity)];
      block->next = std::exchange(first, block);
      stats_.cached_bytes += block->capacity;
    }
  }
  to_backend(dropped);
}

CudaPool::State* CudaPool::pop_locked(size_t capacity) noexcept {
  State*& first = free_[detail::size_class(capacity)];
  State* const found = first;
  if (!found) return nullptr;
  first = std::exchange(found->next, nullptr);
  stats_.cached_bytes -= found->capacity;
  return found;
}

void CudaPool::shrink_locked(size_t most, State*& dropped) noexcept {
  for (size_t i = free_.size(); i-- > 0;) {
    while (free_[i] && held(stats_) > most) {
      State* const block = pop_locked(free_[i]->capacity);
      block->next = std::exchange(dropped, block);
    }
  }
}

void CudaPool::use_locked(State* block, size_t requested, const char* tag) noexcept {
  block->requested = requested;
  block->tag = tag;
  block->before = nullptr;
  block->next = std::exchange(used_, block);
  if (block->next) block->next->before = block;
  stats_.in_use_bytes += block->capacity;
  ++stats_.outstanding;
}

void* CudaPool::from_backend(size_t bytes) {
  return kind_ == Kind::kDevice ? backend_.allocate(bytes) : backend_.allocate_pinned(bytes);
}

void CudaPool::to_backend(State* dropped) noexcept {
  while (dropped) {
    const std::unique_ptr<State> block(std::exchange(dropped, dropped->next));
    kind_ == Kind::kDevice ? backend_.release(block->data) : backend_.release_pinned(block->data);
  }
}

PoolStats CudaPool::stats() const {
  process_.require();
  const std::scoped_lock lock(mutex_);
  return stats_;
}

size_t CudaPool::trim() {
  process_.require();
  State* dropped = nullptr;
  size_t bytes = 0;
  {
    const std::scoped_lock lock(mutex_);
    bytes = stats_.cached_bytes;
    shrink_locked(0, dropped);
  }
  to_backend(dropped);
  return bytes;
}

void CudaPool::limit(size_t max_bytes) {
  process_.require();
  State* dropped = nullptr;
  {
    const std::scoped_lock lock(mutex_);
    stats_.max_bytes = max_bytes;
    if (max_bytes) shrink_locked(max_bytes, dropped);
  }
  to_backend(dropped);
}

std::vector<LeakRow> CudaPool::leaks() const {
  process_.require();
  std::map<std::pair<std::string, size_t>, LeakRow> rows;
  {
    const std::scoped_lock lock(mutex_);
    for (const State* block = used_; block; block = block->next) {
      LeakRow& row = rows[{block->tag, block->capacity}];
      ++row.count;
      row.bytes += block->requested;
    }
  }
  std::vector<LeakRow> out;
  for (auto& [key, row] : rows) out.push_back({key.first, key.second, row.count, row.bytes});
  std::ranges::stable_sort(out, std::ranges::greater{}, &LeakRow::bytes);
  return out;
}

}  // namespace inferkit
