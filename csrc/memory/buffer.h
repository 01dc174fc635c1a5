// A piece of memory on loan from a BufferPool.
#pragma once
#include <cstddef>
#include <span>
#include <utility>

namespace inferkit {

namespace detail {
struct PoolBlock;
/// Gives a block back to its pool; any thread may.
void release_block(PoolBlock* block) noexcept;
size_t block_capacity(const PoolBlock* block) noexcept;
}  // namespace detail

/// Move-only; goes back to the pool with its owner, on whatever thread that is. Keeps the pool's memory alive, so it
/// may outlive the BufferPool object. The memory is 64-byte aligned (page-aligned from 64 KiB) and uninitialised.
/// One buffer is not to be used by two threads at once without their own ordering.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        block_(std::exchange(other.block_, nullptr)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    if (this != &other) {
      release();
      data_ = std::exchange(other.data_, nullptr);
      size_ = std::exchange(other.size_, 0);
      block_ = std::exchange(other.block_, nullptr);
    }
    return *this;
  }
  ~Buffer() { release(); }

  std::byte* data() const { return data_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  /// The bytes asked for; only these may be touched.
  size_t size() const { return size_; }
  std::span<std::byte> bytes() const { return {data_, size_}; }
  /// The bytes that the pool set aside for it.
  size_t capacity() const { return block_ ? detail::block_capacity(block_) : 0; }
  explicit operator bool() const { return block_ != nullptr; }

  /// Gives the memory back now. Does nothing the second time.
  void release() noexcept {
    if (block_) detail::release_block(std::exchange(block_, nullptr));
    data_ = nullptr;
    size_ = 0;
  }

 private:
  friend class BufferPool;
  Buffer(std::byte* data, size_t size, detail::PoolBlock* block) : data_(data), size_(size), block_(block) {}

  std::byte* data_ = nullptr;
  size_t size_ = 0;
  detail::PoolBlock* block_ = nullptr;
};

}  // namespace inferkit
