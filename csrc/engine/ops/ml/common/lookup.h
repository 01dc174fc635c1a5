// Tables of numbers, by 64-bit keys in ascending order.
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

namespace inferkit::ml {

/// A key as 64 bits; NaN is one key, and so are 0 and -0.
template <class T>
uint64_t key_of(T v) {
  if constexpr (std::is_floating_point_v<T>) {
    const double wide = v == 0 ? 0.0 : v != v ? std::numeric_limits<double>::quiet_NaN() : static_cast<double>(v);
    return std::bit_cast<uint64_t>(wide);
  } else {
    return static_cast<uint64_t>(static_cast<int64_t>(v));
  }
}

struct Entry {
  uint64_t key;
  int64_t value;  // an index, or the bits of the value
};

/// A sorted table; of equal keys the first or the last one given stays.
struct Lookup {
  std::vector<Entry> entries;

  void finish(bool last_wins) {
    if (last_wins) std::reverse(entries.begin(), entries.end());
    std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.key < b.key; });
    const auto same = [](const Entry& a, const Entry& b) { return a.key == b.key; };
    entries.erase(std::unique(entries.begin(), entries.end(), same), entries.end());
  }
  const int64_t* find(uint64_t key) const {
    const auto at =
        std::lower_bound(entries.begin(), entries.end(), key, [](const Entry& e, uint64_t k) { return e.key < k; });
    return at == entries.end() || at->key != key ? nullptr : &at->value;
  }
};

inline constexpr int64_t kLookupNanos = 10;

}  // namespace inferkit::ml
