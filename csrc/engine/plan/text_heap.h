// The bytes of the strings that one run makes.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "memory/buffer_pool.h"

namespace inferkit {

/// Memory that only grows, and goes back to the pool as a whole: strings of a run point to each other's bytes, and none
/// knows who else does. Costs nothing until something is put in. One thread's.
class TextHeap {
 public:
  /// `max_bytes` is what it may take from the pool.
  TextHeap(BufferPool& pool, size_t max_bytes) : pool_(pool), left_(max_bytes) {}
  TextHeap(const TextHeap&) = delete;
  TextHeap& operator=(const TextHeap&) = delete;

  /// That of the run that the calling thread is on; there in every run of a model that has strings.
  static TextHeap& current() { return *current_; }
  /// Makes one the current one of this thread, for its lifetime.
  class Scope {
   public:
    explicit Scope(TextHeap& heap) : before_(current_) { current_ = &heap; }
    ~Scope() { current_ = before_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    TextHeap* const before_;
  };

  /// Room for `bytes`, uninitialised. Throws Error(kValidation, kTooLarge) where it would take too much.
  char* allocate(size_t bytes) {
    if (bytes > static_cast<size_t>(end_ - at_)) grow(bytes);
    char* out = at_;
    at_ += bytes;
    return out;
  }
  std::string_view copy(std::string_view text);
  /// Strings of the run show what `owner` has, who is to live as long; `bytes` is about what that costs.
  void keep(std::shared_ptr<const void> owner, size_t bytes);
  /// Takes back the last `bytes` that were given out.
  void give_back(size_t bytes) { at_ -= bytes; }

 private:
  void grow(size_t bytes);
  void charge(size_t bytes);

  BufferPool& pool_;
  size_t left_;
  size_t next_ = size_t{4} << 10;
  char *at_ = nullptr, *end_ = nullptr;
  // Each is twice the one before, or the last.
  static constexpr size_t kMostBlocks = 64;
  std::array<Buffer, kMostBlocks> blocks_;
  size_t count_ = 0;
  std::vector<std::shared_ptr<const void>> owners_;
  static inline constinit thread_local TextHeap* current_ = nullptr;
};

}  // namespace inferkit
