#include "platform/aligned_alloc.h"

#include <cstdlib>
#include <limits>
#include <new>

namespace inferkit {

void* aligned_allocate(size_t bytes) {
  if (bytes > std::numeric_limits<ptrdiff_t>::max() - kAlignment) throw std::bad_alloc();
  void* memory = std::aligned_alloc(kAlignment, round_up(bytes ? bytes : 1, kAlignment));
  if (!memory) throw std::bad_alloc();
  return memory;
}

void aligned_free(void* memory) noexcept { std::free(memory); }

}  // namespace inferkit
