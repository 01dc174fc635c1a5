// The sizes that a buffer pool deals in: multiples of 64 bytes, four steps to each power of two.
#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>

namespace inferkit::detail {

inline constexpr size_t kBlockAlignment = 64;
/// No buffer is larger; leaves room for sums of sizes.
inline constexpr size_t kMaxBlockBytes = size_t{1} << 46;

/// 0 for up to 64 bytes, and so on. `bytes` is at most kMaxBlockBytes.
constexpr size_t size_class(size_t bytes) {
  const size_t last_line = (std::max<size_t>(bytes, 1) - 1) / kBlockAlignment;  // the cache line that holds the end
  if (last_line < 4) return last_line;
  const size_t shift = static_cast<size_t>(std::bit_width(last_line)) - 3;
  return 4 * shift + (last_line >> shift);
}

/// The largest number of bytes of a class: from 256 bytes on, less than 25% above the class before.
constexpr size_t class_bytes(size_t size_class) {
  if (size_class < 4) return (size_class + 1) * kBlockAlignment;
  const size_t shift = size_class / 4 - 1;
  return ((4 + size_class % 4 + 1) << shift) * kBlockAlignment;
}

inline constexpr size_t kSizeClasses = size_class(kMaxBlockBytes) + 1;

}  // namespace inferkit::detail
