// Bytes of a file at an address that their elements may not be read from.
#pragma once
#include <atomic>
#include <cstddef>
#include <memory>
#include <span>

#include "memory/mapped_file.h"

namespace inferkit {

/// Whoever reads them as elements reads a copy, which the first who does so makes; whoever reads bytes, or asks where
/// they lie, needs none. Thread-safe. It holds no lock, so that a child of fork() can go on: of two threads that copy
/// at once, one has done it for nothing.
class OddBytes {
 public:
  /// `place` lies in the file.
  OddBytes(std::shared_ptr<const MappedFile> file, std::span<const std::byte> place)
      : file_(std::move(file)), place_(place) {}
  ~OddBytes();
  OddBytes(const OddBytes&) = delete;
  OddBytes& operator=(const OddBytes&) = delete;

  std::span<const std::byte> place() const { return place_; }
  /// The copy, aligned to 64, which lasts as long as this. Reads the file where nobody has before, so that the caller
  /// must be in a scope of MappedReads, and ask afterwards whether the file is unchanged. Throws std::bad_alloc, and
  /// Stopped where the calling thread's work is to stop.
  const std::byte* aligned() const;
  bool copied() const { return copy_.load(std::memory_order_relaxed) != nullptr; }

 private:
  using Copy = std::shared_ptr<const std::byte>;
  const std::shared_ptr<const MappedFile> file_;
  const std::span<const std::byte> place_;
  mutable std::atomic<const Copy*> copy_{nullptr};  // ours; written once
};

}  // namespace inferkit
