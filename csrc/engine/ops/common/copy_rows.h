// Rows of bytes, copied from one stride to another: Concat, Split, Gather and their like.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "platform/run_control.h"

namespace inferkit {

/// One row of a size that is only known at run time; small powers of two without a call.
inline void copy_row(std::byte* to, const std::byte* from, int64_t bytes) {
  switch (bytes) {
    case 1:
      *to = *from;
      return;
    case 2:
      std::memcpy(to, from, 2);
      return;
    case 4:
      std::memcpy(to, from, 4);
      return;
    case 8:
      std::memcpy(to, from, 8);
      return;
    case 16:
      std::memcpy(to, from, 16);
      return;
    default:
      std::memcpy(to, from, static_cast<size_t>(bytes));
  }
}

/// About what one takes.
inline int64_t row_nanos(int64_t bytes) { return 2 + bytes / 16; }

/// `rows` rows of kBytes.
template <size_t kBytes>
void copy_small_rows(std::byte* to, int64_t to_step, const std::byte* from, int64_t from_step, int64_t rows) {
  for (int64_t r = 0; r < rows; ++r) std::memcpy(to + r * to_step, from + r * from_step, kBytes);
}

/// The same of a size that is only known at run time.
inline void copy_some_rows(std::byte* to, int64_t to_step, const std::byte* from, int64_t from_step, int64_t bytes,
                           int64_t rows) {
  switch (bytes) {
    case 4:
      return copy_small_rows<4>(to, to_step, from, from_step, rows);
    case 8:
      return copy_small_rows<8>(to, to_step, from, from_step, rows);
    default:
      for (int64_t r = 0; r < rows; ++r) copy_row(to + r * to_step, from + r * from_step, bytes);
  }
}

/// `rows` rows of `bytes` each, `to_step` and `from_step` bytes apart; no overlap.
inline void copy_rows(std::byte* to, int64_t to_step, const std::byte* from, int64_t from_step, int64_t bytes,
                      int64_t rows) {
  if (bytes == 0 || rows == 0) return;
  if (to_step == bytes && from_step == bytes) {
    return copy_in_blocks(to, from, static_cast<size_t>(bytes * rows));
  }
  constexpr int64_t kLongRow = 1 << 20;
  if (bytes >= kLongRow) {
    for_parts(rows,
              [&](int64_t r) { copy_in_blocks(to + r * to_step, from + r * from_step, static_cast<size_t>(bytes)); });
    return;
  }
  WorkMeter meter;
  for_blocks(meter, 0, rows, row_nanos(bytes), [&](int64_t first, int64_t last) {
    copy_some_rows(to + first * to_step, to_step, from + first * from_step, from_step, bytes, last - first);
  });
}

}  // namespace inferkit
