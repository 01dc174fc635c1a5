#include "memory/copy_room.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>

#include "platform/aligned_alloc.h"
#include "platform/asan.h"

namespace inferkit {
namespace {

constexpr size_t kBlock = size_t{32} << 20;  // of several copies; larger ones have one each

size_t page_bytes() { return static_cast<size_t>(::sysconf(_SC_PAGESIZE)); }

}  // namespace

std::shared_ptr<std::byte> CopyRoom::take(size_t bytes, size_t most) {
  if (bytes > std::numeric_limits<size_t>::max() / 2) throw std::bad_alloc();
#ifdef INFERKIT_ASAN  // which sees what is read behind a copy only where nothing else lies there
  if (bytes <= kBlock) {
    std::shared_ptr<std::byte> alone(static_cast<std::byte*>(aligned_allocate(bytes)), aligned_free);
    std::memset(alone.get(), 0, bytes);
    return alone;
  }
#endif
  const size_t room = round_up(bytes, kAlignment);
  if (room > size_ - used_) {
    open(std::max(room, std::min(most, kBlock)));
  }
  std::byte* const at = block_.get() + used_;
#ifdef MADV_POPULATE_WRITE
  // All pages at once, a hint: a trap for each costs more than the bytes that are copied to it. Huge pages were faster
  // in one series and slower in the next.
  const uintptr_t page = page_bytes();
  const uintptr_t begin = reinterpret_cast<uintptr_t>(at) & ~(page - 1);
  const auto part = static_cast<size_t>(reinterpret_cast<uintptr_t>(at) + room - begin);
  ::madvise(reinterpret_cast<void*>(begin), part, MADV_POPULATE_WRITE);
#endif
  used_ += room;
  return {block_, at};
}

void CopyRoom::open(size_t bytes) {
  const size_t size = round_up(bytes, page_bytes());
  void* const data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) throw std::bad_alloc();
  block_ = std::shared_ptr<std::byte>(static_cast<std::byte*>(data), [size](std::byte* at) { ::munmap(at, size); });
  used_ = 0;
  size_ = size;
}

}  // namespace inferkit
