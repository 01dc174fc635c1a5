// Elements of any type as integers that compare as they do: what sorts, ranks and searches is compiled once and not for
// each type.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "engine/ops/dispatch.h"

namespace inferkit {

enum class NanKey : uint8_t { kLowest, kHighest };

/// Writes the keys of `count` elements that are `stride` elements apart. `reversed` ones compare the other way round;
/// NaN is above or below them all in any case.
using KeysFn = void (*)(const std::byte* x, int64_t stride, int64_t count, bool reversed, NanKey nan, int64_t* keys);

/// The key of a float or a double: as wide as it is. `flip` is -1 where keys are reversed, else 0.
template <class C>
auto floating_key(C v, int64_t flip, NanKey nan) {
  using Bits = std::conditional_t<sizeof(C) == 8, int64_t, int32_t>;
  constexpr auto kInfinity = std::bit_cast<Bits>(std::numeric_limits<C>::infinity());
  // Sign and magnitude; both zeros, and subnormals where they count as zero, become one.
  const auto bits = std::bit_cast<Bits>(v + C(0));
  const Bits magnitude = bits & std::numeric_limits<Bits>::max();
  const Bits key = bits ^ ((bits >> (8 * sizeof(Bits) - 1)) & std::numeric_limits<Bits>::max());
  const Bits unordered = nan == NanKey::kHighest ? std::numeric_limits<Bits>::max() : std::numeric_limits<Bits>::min();
  // Of one width, and NaN told by its bits: in vectors.
  return magnitude > kInfinity ? unordered : static_cast<Bits>(key ^ static_cast<Bits>(flip));
}

template <class T>
void write_keys(const std::byte* x, int64_t stride, int64_t count, bool reversed, NanKey nan, int64_t* keys) {
  const T* from = reinterpret_cast<const T*>(x);
  const int64_t flip = reversed ? -1 : 0;
  const auto write = [&](int64_t i, Compute<T> v) {
    if constexpr (std::is_floating_point_v<Compute<T>>) {
      keys[i] = floating_key(v, flip, nan);
    } else if constexpr (std::is_same_v<T, uint64_t>) {
      keys[i] = static_cast<int64_t>(v ^ (uint64_t{1} << 63)) ^ flip;
    } else {
      keys[i] = static_cast<int64_t>(v) ^ flip;
    }
  };
  if (stride == 1) {
    for (int64_t i = 0; i < count; ++i) write(i, load(from[i]));
  } else {
    for (int64_t i = 0; i < count; ++i) write(i, load(from[i * stride]));
  }
}

template <TypeSet Set>
KeysFn keys_fn(DType dtype) {
  return dispatch<Set>(dtype, []<class T>() -> KeysFn { return write_keys<T>; });
}

}  // namespace inferkit
