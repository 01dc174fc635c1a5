#include <algorithm>
#include <cstdint>
#include <limits>
#include <new>
#include <span>
#include <vector>

#include "memory/copy_room.h"
#include "platform/asan.h"
#include "test.h"

using namespace inferkit;

namespace {

constexpr size_t kMiB = size_t{1} << 20;

bool all_are(const std::shared_ptr<std::byte>& part, size_t bytes, int value) {
  return std::ranges::all_of(std::span(part.get(), bytes), [&](std::byte b) { return b == std::byte(value); });
}

}  // namespace

TEST(copies_have_room_of_their_own) {
  // They outlive the room; some fill a block, some are larger than one.
  constexpr size_t kSizes[] = {1, 63, 64, 65, 4095, 20'000, 3 * kMiB + 1, 31 * kMiB, 33 * kMiB, 100, 7};
  std::vector<std::shared_ptr<std::byte>> parts;
  for (const size_t most : {size_t{1}, size_t{100'000}, 40 * kMiB, std::numeric_limits<size_t>::max()}) {
    parts.clear();
    {
      CopyRoom room;
      for (const size_t bytes : kSizes) {
        parts.push_back(room.take(bytes, most));
        CHECK_EQ(reinterpret_cast<uintptr_t>(parts.back().get()) % 64, 0u);
        CHECK(all_are(parts.back(), bytes, 0));
        std::fill_n(parts.back().get(), bytes, std::byte(parts.size()));
      }
    }
    for (size_t i = 0; i < parts.size(); ++i) CHECK(all_are(parts[i], kSizes[i], static_cast<int>(i) + 1));
  }
}

TEST(copies_keep_their_block) {
  CopyRoom room;
  auto first = room.take(100, kMiB);
  const auto second = room.take(100, kMiB);
#ifndef INFERKIT_ASAN  // below it, each has a block of its own
  CHECK_EQ(second.get() - first.get(), 128);
#endif
  std::fill_n(second.get(), 100, std::byte{5});
  first.reset();
  room.take(kMiB * 64, kMiB);  // another block
  CHECK(all_are(second, 100, 5));
}

TEST(copies_that_no_system_has_room_for) {
  CopyRoom room;
  const auto small = room.take(10, 10);
  for (const size_t bytes : {std::numeric_limits<size_t>::max(), std::numeric_limits<size_t>::max() / 2}) {
    CHECK_THROWS(room.take(bytes, bytes), std::bad_alloc);
  }
  CHECK(all_are(small, 10, 0));
  CHECK(all_are(room.take(10, 10), 10, 0));
}
