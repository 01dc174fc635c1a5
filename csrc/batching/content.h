// What equal requests have in common: the bytes of their inputs.
#pragma once
#include <array>
#include <cstdint>
#include <span>

#include "batching/layout.h"
#include "engine/runner.h"
#include "memory/buffer.h"

namespace inferkit {

/// The inputs of a request as they lie in its buffer, see Request::inputs. A view: of what it shows, nothing is owned.
struct Content {
  std::span<const PortSpec> ports;
  const RowLayout& layout;
  int64_t rows, length;
  const Buffer& inputs;
};

/// Every byte, and every shape, is the same. A NaN equals itself, and 0.0 is not -0.0: what is equal here has the same
/// answer.
bool same_content(const Content& a, const Content& b) noexcept;

/// A hash with a key that nobody knows: who sends requests cannot make many that share one. Only to find what may be
/// equal; whether it is, same_content() says.
class ContentHash {
 public:
  ContentHash();
  uint64_t of(const Content& content) const noexcept;

 private:
  static constexpr size_t kLanes = 4;
  uint64_t bytes(uint64_t seed, const std::byte* at, size_t count) const noexcept;

  std::array<uint64_t, kLanes> key_;
};

}  // namespace inferkit
