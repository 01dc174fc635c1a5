// Memory aligned to 64 bytes: a cache line, and the widest vector.
#pragma once
#include <concepts>
#include <cstddef>
#include <memory>
#include <type_traits>

namespace inferkit {

inline constexpr size_t kAlignment = 64;

/// The least multiple of `multiple` that is not below `value`; both are positive, or `value` is 0.
template <std::integral T>
constexpr T round_up(T value, std::type_identity_t<T> multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

/// At least `bytes` bytes, aligned to kAlignment; never null, throws std::bad_alloc. Not initialised.
void* aligned_allocate(size_t bytes);
void aligned_free(void* memory) noexcept;

struct AlignedDelete {
  void operator()(void* memory) const noexcept { aligned_free(memory); }
};

/// An owned, aligned array of plain values.
template <class T>
using AlignedArray = std::unique_ptr<T[], AlignedDelete>;

template <class T>
AlignedArray<T> make_aligned(size_t count) {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);
  return AlignedArray<T>(static_cast<T*>(aligned_allocate(count * sizeof(T))));
}

}  // namespace inferkit
