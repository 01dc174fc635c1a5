#include "memory/buffer_pool.h"

#include <stdexcept>

#include "base/error.h"
#include "memory/pool_state.h"

namespace inferkit {

namespace detail {
void release_block(PoolBlock* block) noexcept { block->state->release(block); }
size_t block_capacity(const PoolBlock* block) noexcept { return class_bytes(block->size_class); }
}  // namespace detail

namespace {
const PoolOptions& checked(const PoolOptions& options) {
  if (options.max_bytes != 0 && options.max_bytes < detail::kBlockAlignment) {
    throw std::invalid_argument(cat("max_bytes is ", options.max_bytes, "; expected 0 for no cap, or at least ",
                                    detail::kBlockAlignment, ", the smallest buffer"));
  }
  return options;
}
}  // namespace

BufferPool::BufferPool(PoolOptions options) : state_(detail::PoolState::create(checked(options))) {}
BufferPool::~BufferPool() { state_->close(); }

Buffer BufferPool::acquire(size_t bytes, const char* tag) {
  detail::PoolBlock* block = state_->acquire(bytes, tag);
  return Buffer(block->data, bytes, block);
}

PoolStats BufferPool::stats() const { return state_->stats(); }
size_t BufferPool::trim() { return state_->trim(); }
std::vector<LeakRow> BufferPool::leaks() const { return state_->leaks(); }
const PoolOptions& BufferPool::options() const { return state_->options(); }

const std::shared_ptr<BufferPool>& BufferPool::process_default() {
  // Never destroyed: threads may give buffers back while the process ends.
  static const auto& pool = *std::make_unique<std::shared_ptr<BufferPool>>(std::make_shared<BufferPool>()).release();
  return pool;
}

}  // namespace inferkit
