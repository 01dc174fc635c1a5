#include <cstdint>
#include <cstring>
#include <limits>
#include <new>

#include "platform/aligned_alloc.h"
#include "test.h"

using namespace inferkit;

TEST(aligned_alloc_gives_whole_lines) {
  for (const size_t bytes : {0, 1, 63, 64, 65, 100000}) {
    void* memory = aligned_allocate(bytes);
    CHECK_EQ(reinterpret_cast<uintptr_t>(memory) % kAlignment, 0u);
    std::memset(memory, 1, bytes);
    aligned_free(memory);
  }
  const auto array = make_aligned<double>(9);
  CHECK_EQ(reinterpret_cast<uintptr_t>(array.get()) % kAlignment, 0u);
}

TEST(aligned_alloc_refuses_what_cannot_be) {
  CHECK_THROWS(aligned_allocate(std::numeric_limits<size_t>::max()), std::bad_alloc);
  CHECK_THROWS(aligned_allocate(std::numeric_limits<size_t>::max() / 2), std::bad_alloc);
}
