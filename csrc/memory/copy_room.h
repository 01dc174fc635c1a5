// Memory for what is copied out of a file: blocks that many copies share.
#pragma once
#include <cstddef>
#include <memory>

namespace inferkit {

/// Hands out memory that is never taken back; a block goes back to the system with the last owner of any part of it.
/// The system is asked for the pages of a copy at once: a trap for each costs more time than the bytes that are copied.
/// Pages that nobody took are never touched. Not thread-safe.
class CopyRoom {
 public:
  CopyRoom() = default;
  CopyRoom(const CopyRoom&) = delete;
  CopyRoom& operator=(const CopyRoom&) = delete;

  /// `bytes`, at least one, zeroed and aligned to 64; `most`, how many may be wanted in all, bounds what a new block
  /// reserves. Throws std::bad_alloc.
  std::shared_ptr<std::byte> take(size_t bytes, size_t most);

 private:
  void open(size_t bytes);

  std::shared_ptr<std::byte> block_;
  size_t used_ = 0, size_ = 0;  // of the block
};

}  // namespace inferkit
