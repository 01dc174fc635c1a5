#include "memory/size_class.h"
#include "test.h"

using namespace inferkit::detail;

TEST(size_classes_cover_and_waste_little) {
  CHECK_EQ(size_class(0), 0u);
  CHECK_EQ(class_bytes(0), 64u);
  size_t previous = 0;
  for (size_t i = 0; i < kSizeClasses; ++i) {
    const size_t bytes = class_bytes(i);
    CHECK(bytes > previous);
    CHECK_EQ(bytes % kBlockAlignment, 0u);
    // The smallest and the largest request of the class land in it.
    CHECK_EQ(size_class(previous + 1), i);
    CHECK_EQ(size_class(bytes), i);
    if (previous >= 256) CHECK(4 * (bytes - (previous + 1)) < bytes + previous);  // waste below 25% of the request
    previous = bytes;
  }
  CHECK_EQ(previous, kMaxBlockBytes);
  // A hand-made row of the table.
  const size_t expected[] = {64, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280};
  for (size_t i = 0; i < std::size(expected); ++i) CHECK_EQ(class_bytes(i), expected[i]);
}
