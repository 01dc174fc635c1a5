#include "memory/copy_room.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <new>

namespace inferkit {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHuge = size_t{2} << 20;   // as most machines have them; elsewhere it is only a size
constexpr size_t kBlock = size_t{32} << 20;  // of several copies; larger ones have one each

size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

}  // namespace

std::shared_ptr<std::byte> CopyRoom::take(size_t bytes, size_t most) {
  if (bytes > std::numeric_limits<size_t>::max() / 2) throw std::bad_alloc();
  const size_t room = round_up(bytes, kAlignment);
  if (room > size_ - used_) {
    close();
    open(std::max(room, std::min(most, kBlock)));
  }
  std::byte* const at = block_.get() + used_;
  used_ += room;
  return {block_, at};
}

/// The block begins where a huge page does, so that all of it can be of those.
void CopyRoom::open(size_t bytes) {
  const size_t size = round_up(bytes, kHuge), reserved = size + kHuge;
  void* const data = ::mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) throw std::bad_alloc();
  const std::shared_ptr<void> memory(data, [reserved](void* at) { ::munmap(at, reserved); });
  auto* const first = static_cast<std::byte*>(data);
  const size_t skipped = round_up(reinterpret_cast<uintptr_t>(first), kHuge) - reinterpret_cast<uintptr_t>(first);
  block_ = std::shared_ptr<std::byte>(memory, first + skipped);
  used_ = 0;
  size_ = size;
#ifdef MADV_HUGEPAGE
  if (bytes >= kHuge) ::madvise(block_.get(), size, MADV_HUGEPAGE);  // a hint
#endif
}

void CopyRoom::close() noexcept {
  if (!block_) return;
  const size_t kept = round_up(used_, static_cast<size_t>(::sysconf(_SC_PAGESIZE)));
  if (kept < size_) ::madvise(block_.get() + kept, size_ - kept, MADV_DONTNEED);
  block_.reset();
  used_ = size_ = 0;
}

}  // namespace inferkit
