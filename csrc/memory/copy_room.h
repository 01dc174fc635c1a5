// Memory for what is copied out of a file: blocks that many copies share.
#pragma once
#include <cstddef>
#include <memory>

namespace inferkit {

/// Hands out memory that is never taken back; a block goes back to the system with the last owner of any part of it.
/// The system gives huge pages where it has them: each small page that is touched for the first time costs more time
/// than the bytes that are copied to it. Not thread-safe.
class CopyRoom {
 public:
  CopyRoom() = default;
  /// Gives back what is left of the last block.
  ~CopyRoom() { close(); }
  CopyRoom(const CopyRoom&) = delete;
  CopyRoom& operator=(const CopyRoom&) = delete;

  /// `bytes`, at least one, zeroed and aligned to 64; `most`, how many may be wanted in all, bounds what a new block
  /// reserves. Throws std::bad_alloc.
  std::shared_ptr<std::byte> take(size_t bytes, size_t most);

 private:
  void open(size_t bytes);
  void close() noexcept;

  std::shared_ptr<std::byte> block_;
  size_t used_ = 0, size_ = 0;  // of the block
};

}  // namespace inferkit
