// One block of a buffer pool and the lists it stands in. Internal to memory/.
#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "memory/size_class.h"

namespace inferkit::detail {

class PoolState;

/// Owns its memory. Kept apart from it, so that free memory is never read or written (and can be poisoned), and on
/// cache lines of its own, as neighbours belong to other threads.
struct alignas(64) PoolBlock {
  /// Throws std::bad_alloc where the system has no memory.
  PoolBlock(PoolState* owner, size_t size_class);
  ~PoolBlock();
  PoolBlock(const PoolBlock&) = delete;
  PoolBlock& operator=(const PoolBlock&) = delete;

  /// Lets `bytes` be touched, and nothing else; and nothing at all. Where the build can check it (ASan), it is
  /// checked; other debug builds overwrite what is free.
  void open(size_t bytes) noexcept;
  void close() noexcept;

  std::byte* data;
  PoolState* const state;
  const uint32_t size_class;
  uint32_t index = 0;         // in PoolState::blocks_
  PoolBlock* next = nullptr;  // in a free list, guarded by that list's lock
  // For leaks(), which reads while others write: relaxed, each is a fact of its own. No tag: the block is free.
  std::atomic<const char*> tag{nullptr};
  std::atomic<size_t> requested{0};
};

/// Free blocks by size class, last in first out (the warmest first). Guarded by its owner's lock.
class FreeLists {
 public:
  PoolBlock* pop(size_t size_class) {
    PoolBlock* block = heads_[size_class];
    if (block) {
      heads_[size_class] = block->next;
      --counts_[size_class];
      bytes_ -= class_bytes(size_class);
    }
    return block;
  }
  void push(PoolBlock* block) {
    block->next = heads_[block->size_class];
    heads_[block->size_class] = block;
    ++counts_[block->size_class];
    bytes_ += class_bytes(block->size_class);
  }
  size_t bytes() const { return bytes_; }
  uint32_t count(size_t size_class) const { return counts_[size_class]; }

 private:
  std::array<PoolBlock*, kSizeClasses> heads_{};
  std::array<uint32_t, kSizeClasses> counts_{};
  size_t bytes_ = 0;
};

/// Blocks on their way back to the system, so that their end can wait until every lock is released. Adding one
/// allocates nothing.
class DroppedBlocks {
 public:
  DroppedBlocks() = default;
  ~DroppedBlocks() {
    while (PoolBlock* block = head_) {
      head_ = block->next;
      std::unique_ptr<PoolBlock>(block).reset();
    }
  }
  DroppedBlocks(const DroppedBlocks&) = delete;
  DroppedBlocks& operator=(const DroppedBlocks&) = delete;

  void add(std::unique_ptr<PoolBlock> block) {
    bytes_ += class_bytes(block->size_class);
    block->next = head_;
    head_ = block.release();
  }
  size_t bytes() const { return bytes_; }

 private:
  PoolBlock* head_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace inferkit::detail
