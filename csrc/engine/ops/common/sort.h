// Sorting that may take long.
#pragma once
#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>

#include "platform/run_control.h"

namespace inferkit {

/// Sorts by `less`, a strict total order of which one comparison takes about `nanos`; `room` holds as many. False where
/// the work was left.
template <class T, class Less>
bool sort_in_blocks(WorkMeter& meter, std::span<T> items, std::span<T> room, int64_t nanos, Less less) {
  constexpr int64_t kChunk = 1 << 13, kDepth = 13;
  const auto count = static_cast<int64_t>(items.size());
  for (int64_t first = 0; first < count; first += kChunk) {
    const int64_t last = std::min(count, first + kChunk);
    if (!meter.go_on((last - first) * kDepth * nanos)) return false;
    std::sort(items.data() + first, items.data() + last, less);
  }
  T *from = items.data(), *to = room.data();
  for (int64_t width = kChunk; width < count; width *= 2) {
    for (int64_t first = 0; first < count; first += 2 * width) {
      const T *left = from + first, *const middle = from + std::min(count, first + width), *right = middle;
      const T* const end = from + std::min(count, first + 2 * width);
      T* out = to + first;
      const bool went_on = for_blocks(meter, 0, end - left, nanos, [&](int64_t begin, int64_t stop) {
        for (int64_t i = begin; i < stop; ++i) {
          const bool takes_right = left == middle || (right != end && less(*right, *left));
          *out++ = takes_right ? *right++ : *left++;
        }
      });
      if (!went_on) return false;
    }
    std::swap(from, to);
  }
  if (from != items.data()) std::copy(from, from + count, items.data());
  return true;
}

}  // namespace inferkit
