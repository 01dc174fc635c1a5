// Memory of a CUDA device, and pinned memory of the host, kept for whoever comes next: a driver that gets some back may
// wait for all that runs on the device. With the contract of memory/buffer_pool.h: a cap, statistics, a report of what
// is out.
#pragma once
#include <array>
#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "device/cuda/backend.h"
#include "device/cuda/own_process.h"
#include "memory/buffer_pool.h"
#include "memory/size_class.h"

namespace inferkit {

namespace detail {
/// A block of a pool, in one of its lists, or on its way to or from the backend.
struct CudaBlockState {
  void* data = nullptr;
  size_t capacity = 0, requested = 0;
  const char* tag = "";
  bool once = false;  // goes back to the backend, and not to who comes next
  CudaBlockState *next = nullptr, *before = nullptr;
};
}  // namespace detail

class CudaPool;

/// Memory on loan from a pool, aligned to 256 bytes; goes back with its owner. The pool must outlive it.
class CudaBlock {
 public:
  CudaBlock() = default;
  CudaBlock(CudaBlock&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)), state_(std::exchange(other.state_, nullptr)) {}
  CudaBlock& operator=(CudaBlock&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(state_, other.state_);
    return *this;
  }
  inline ~CudaBlock();

  std::byte* data() const { return state_ ? static_cast<std::byte*>(state_->data) : nullptr; }
  explicit operator bool() const { return state_ != nullptr; }
  /// It goes back to the driver, which waits for all that may still use it, and not to who comes next.
  void never_again() {
    if (state_) state_->once = true;
  }

 private:
  friend class CudaPool;
  CudaBlock(CudaPool* pool, detail::CudaBlockState* state) : pool_(pool), state_(state) {}
  CudaPool* pool_ = nullptr;
  detail::CudaBlockState* state_ = nullptr;
};

/// Thread-safe. Memory comes from the backend, and goes back to it, under no lock.
class CudaPool {
 public:
  enum class Kind : uint8_t { kDevice, kPinned };
  /// Free memory that it keeps; what is beyond goes back.
  static constexpr size_t kMostCached = size_t{256} << 20;

  /// `backend` must outlive it.
  CudaPool(CudaBackend& backend, Kind kind) : backend_(backend), kind_(kind) {}
  /// Every block is back by then.
  ~CudaPool();
  CudaPool(const CudaPool&) = delete;
  CudaPool& operator=(const CudaPool&) = delete;

  /// Memory of a size class, undefined. `tag` names the user in leaks(), and must live as long as the program. Throws
  /// Error(kPoolExhausted) with figures where the cap or the device does not allow it even after all that is free has
  /// been given back; Error(kDevice) where the device fails.
  CudaBlock acquire(size_t bytes, const char* tag) { return take(bytes, tag, false); }
  /// The same of that size, to be kept long: weights.
  CudaBlock acquire_once(size_t bytes, const char* tag) { return take(bytes, tag, true); }

  PoolStats stats() const;
  /// Gives what is free back; returns how many bytes.
  size_t trim();
  std::vector<LeakRow> leaks() const;
  /// No more than so many bytes, in use and free, from now on; 0 for no cap. What is in use stays.
  void limit(size_t max_bytes);

 private:
  friend class CudaBlock;
  using State = detail::CudaBlockState;

  CudaBlock take(size_t bytes, const char* tag, bool once);
  void give_back(State* block) noexcept;
  State* pop_locked(size_t capacity) noexcept;
  /// Puts free blocks into `dropped`, the largest first, until no more than `most` bytes are held.
  void shrink_locked(size_t most, State*& dropped) noexcept;
  void use_locked(State* block, size_t requested, const char* tag) noexcept;
  void* from_backend(size_t bytes);
  void to_backend(State* dropped) noexcept;

  CudaBackend& backend_;
  const Kind kind_;
  const OwnProcess process_;
  mutable std::mutex mutex_;                         // for what follows
  std::array<State*, detail::kSizeClasses> free_{};  // by size class, last in first out
  State* used_ = nullptr;
  PoolStats stats_;  // its max_bytes is the cap
};

CudaBlock::~CudaBlock() {
  if (state_) pool_->give_back(state_);
}

}  // namespace inferkit
