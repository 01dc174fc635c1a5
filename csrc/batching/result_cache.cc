#include "batching/result_cache.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "batching/coalescer.h"

namespace inferkit {

/// Does not change once it is in the table, but for its links.
struct ResultCache::Entry : RefCounted<Entry> {
  uint64_t hash = 0;
  LayoutRef layout;
  int64_t rows = 0, length = 0;
  Buffer inputs;
  IntrusivePtr<BatchOutputs> outputs;
  size_t bytes = 0;
  Entry *newer = nullptr, *older = nullptr;  // the table owns a reference
};

class ResultCache::Gone {
 public:
  Gone() = default;
  ~Gone() {
    while (Entry* entry = first_) {
      first_ = entry->older;
      entry->release();
    }
  }
  Gone(const Gone&) = delete;
  Gone& operator=(const Gone&) = delete;

  void add(EntryRef ref) noexcept {
    Entry* entry = ref.detach();
    entry->older = first_;
    first_ = entry;
  }

 private:
  Entry* first_ = nullptr;
};

namespace {

constexpr size_t kBesides = 512;  // bytes: an entry, its place in the table, and what describes its outputs

size_t bytes_of(const TensorView& view) {
  size_t bytes = view.bytes();
  if (view.dtype != DType::kString) return bytes;
  for (int64_t i = 0; i < view.shape.elements(); ++i) bytes += view.as<std::string_view>()[i].size();
  return bytes;
}

/// With memory of its own: a batch's is as large as the batch.
BatchOutput copy_of(const TensorView& view, BufferPool& pool) {
  BatchOutput out;
  out.dtype = view.dtype;
  out.shape = view.shape;
  const size_t bytes = view.bytes(), all = bytes_of(view);
  out.buffer = pool.acquire(std::max<size_t>(bytes, 1), "result cache");
  if (bytes) std::memcpy(out.buffer.data(), view.data, bytes);
  if (view.dtype != DType::kString) return out;
  out.text = pool.acquire(std::max<size_t>(all - bytes, 1), "result cache");
  char* at = out.text.as<char>();
  for (std::string_view& text : std::span(out.buffer.as<std::string_view>(), size_t(view.shape.elements()))) {
    if (!text.empty()) std::memcpy(at, text.data(), text.size());
    text = {at, text.size()};
    at += text.size();
  }
  return out;
}

}  // namespace

ResultCache::ResultCache(std::span<const PortSpec> inputs, BufferPool& pool, size_t max_bytes)
    : inputs_(inputs),
      pool_(pool),
      max_bytes_(pool.options().max_bytes ? std::min(max_bytes, pool.options().max_bytes / 2) : max_bytes) {}

ResultCache::~ResultCache() { clear(); }

void ResultCache::clear() noexcept {
  Gone gone;
  const MutexLock lock(mutex_);
  while (newest_) drop_locked(*newest_, gone);
}

void ResultCache::link_locked(Entry& entry) noexcept {
  entry.older = newest_;
  entry.newer = nullptr;
  (newest_ ? newest_->newer : oldest_) = &entry;
  newest_ = &entry;
}

void ResultCache::unlink_locked(Entry& entry) noexcept {
  (entry.newer ? entry.newer->older : newest_) = entry.older;
  (entry.older ? entry.older->newer : oldest_) = entry.newer;
}

void ResultCache::drop_locked(Entry& entry, Gone& gone) noexcept {
  const auto it = table_.find(entry.hash);
  unlink_locked(entry);
  bytes_ -= entry.bytes;
  gone.add(std::move(it->second));
  table_.erase(it);
}

/// False where that model has been replaced.
bool ResultCache::begin_locked(uint64_t generation, Gone& gone) noexcept {
  if (generation < generation_) return false;
  if (generation > generation_) {
    while (newest_) drop_locked(*newest_, gone);
    generation_ = generation;
  }
  return true;
}

void ResultCache::follow(uint64_t generation) noexcept {
  Gone gone;
  const MutexLock lock(mutex_);
  begin_locked(generation, gone);
}

IntrusivePtr<BatchOutputs> ResultCache::find(uint64_t hash, const Content& content, uint64_t generation) noexcept {
  EntryRef found;
  {
    Gone gone;
    const MutexLock lock(mutex_);
    if (begin_locked(generation, gone)) {
      if (const auto it = table_.find(hash); it != table_.end()) {
        found = it->second;
        unlink_locked(*found);
        link_locked(*found);
      }
    }
  }
  if (!found || !same_content(content, {inputs_, *found->layout, found->rows, found->length, found->inputs})) {
    misses_.add();
    return nullptr;
  }
  hits_.add();
  return found->outputs;
}

void ResultCache::keep(Request& request, const BatchOutputs& outputs, int64_t first_row, uint64_t generation) noexcept {
  try {
    size_t bytes = kBesides + request.inputs.capacity();
    std::vector<TensorView> parts;
    for (const BatchOutput& output : outputs.outputs) {
      parts.push_back(request.part_of(output, first_row));
      bytes += bytes_of(parts.back());
    }
    if (bytes > max_bytes_) return;
    EntryRef entry(new Entry);
    entry->outputs = IntrusivePtr<BatchOutputs>(new BatchOutputs);
    entry->bytes = kBesides + request.inputs.capacity();
    for (const TensorView& part : parts) {
      const BatchOutput& kept = entry->outputs->outputs.emplace_back(copy_of(part, pool_));
      entry->bytes += kept.buffer.capacity() + kept.text.capacity();
    }
    if (entry->bytes > max_bytes_) return;
    entry->hash = request.by_content->hash;
    entry->layout = request.layout;
    entry->rows = request.rows;
    entry->length = request.length;
    entry->inputs = std::move(request.inputs);
    Gone gone;
    const MutexLock lock(mutex_);
    if (!begin_locked(generation, gone)) return;
    if (const auto it = table_.find(entry->hash); it != table_.end()) drop_locked(*it->second, gone);
    while (bytes_ + entry->bytes > max_bytes_) {
      drop_locked(*oldest_, gone);
      evictions_.add();
    }
    table_.emplace(entry->hash, entry);
    link_locked(*entry);
    bytes_ += entry->bytes;
  } catch (...) {  // no memory: the answer goes to those who wait, and is not kept
  }
}

ResultCacheFigures ResultCache::figures() const {
  ResultCacheFigures out{hits_.value(), misses_.value(), evictions_.value()};
  const MutexLock lock(mutex_);
  out.entries = table_.size();
  out.bytes = bytes_;
  return out;
}

}  // namespace inferkit
