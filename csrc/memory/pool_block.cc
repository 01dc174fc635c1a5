#include "memory/pool_block.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>

#include "platform/asan.h"

#ifdef INFERKIT_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace inferkit::detail {
namespace {

// From here on memory comes from the kernel and goes back to it, so that trim() is seen in the process's size.
constexpr size_t kMapFrom = size_t{64} << 10;

std::byte* take_from_system(size_t bytes) {
  void* data = nullptr;
  if (bytes >= kMapFrom) {
    data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) data = nullptr;
  } else {
    data = std::aligned_alloc(kBlockAlignment, bytes);
  }
  if (!data) throw std::bad_alloc();
  return static_cast<std::byte*>(data);
}

}  // namespace

PoolBlock::PoolBlock(PoolState* owner, size_t size_class_)
    : data(take_from_system(class_bytes(size_class_))), state(owner), size_class(static_cast<uint32_t>(size_class_)) {}

PoolBlock::~PoolBlock() {
  const size_t bytes = class_bytes(size_class);
#ifdef INFERKIT_ASAN
  ASAN_UNPOISON_MEMORY_REGION(data, bytes);
#endif
  if (bytes >= kMapFrom) {
    ::munmap(data, bytes);
  } else {
    std::free(data);
  }
}

void PoolBlock::open([[maybe_unused]] size_t bytes) noexcept {
#ifdef INFERKIT_ASAN
  ASAN_POISON_MEMORY_REGION(data, class_bytes(size_class));
  ASAN_UNPOISON_MEMORY_REGION(data, bytes);
#endif
}

void PoolBlock::close() noexcept {
#if defined(INFERKIT_ASAN)
  ASAN_POISON_MEMORY_REGION(data, class_bytes(size_class));
#elif !defined(NDEBUG)
  std::memset(data, 0xdb, requested.load(std::memory_order_relaxed));
#endif
}

}  // namespace inferkit::detail
