// What a minute of histograms gained, in one piece of memory.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

namespace inferkit {

/// How many values one bucket of one histogram was given. Six bytes: a minute holds tens of thousands.
struct Gain {
  Gain() = default;
  Gain(uint16_t bucket_, uint32_t count)
      : bucket(bucket_), low(static_cast<uint16_t>(count)), high(static_cast<uint16_t>(count >> 16)) {}
  uint32_t count() const { return uint32_t{high} << 16 | low; }

  uint16_t bucket = 0;  // counted through all histograms

 private:
  uint16_t low = 0, high = 0;
};
static_assert(sizeof(Gain) == 6);

/// A queue of gains, each found by its number. Its memory is that of the most that it held at once, rounded up to a
/// power of two, and never more than it was allowed. Not thread-safe.
class GainRing {
 public:
  explicit GainRing(size_t most) : most_(most) {}

  /// The number that the next gain gets.
  uint64_t end() const { return end_; }
  /// False, and nothing is added, where it is full or the system has no memory.
  bool push(Gain gain) noexcept {
    if (end_ - begin_ == ring_.size() && !grow()) return false;
    ring_[end_++ % ring_.size()] = gain;
    return true;
  }
  Gain operator[](uint64_t number) const { return ring_[number % ring_.size()]; }
  /// Forgets those before `number`.
  void drop_before(uint64_t number) { begin_ = std::clamp(number, begin_, end_); }
  size_t memory_bytes() const { return ring_.capacity() * sizeof(Gain); }

 private:
  static constexpr size_t kFirst = 1024;

  bool grow() noexcept {
    const size_t size = std::min(std::max(kFirst, 2 * ring_.size()), most_);
    if (size <= ring_.size()) return false;
    try {
      std::vector<Gain> larger(size);
      for (uint64_t i = begin_; i < end_; ++i) larger[i % size] = ring_[i % ring_.size()];
      ring_ = std::move(larger);
      return true;
    } catch (const std::bad_alloc&) {
      return false;
    }
  }

  const size_t most_;
  std::vector<Gain> ring_;
  uint64_t begin_ = 0, end_ = 0;
};

}  // namespace inferkit
