// A fast hash of contents under a secret key: tells whether bytes are the ones that were there.
#pragma once
#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>

namespace inferkit {

struct Digest {
  uint64_t first = 0, second = 0;
  auto operator<=>(const Digest&) const = default;
};

/// Sums of products of 64-bit words and keys (NH, as in UMAC), and polynomials over those of 2 KiB each. For two
/// different contents that were chosen without knowing the key, the chance of one digest is about 2^-60 for each pair.
/// Who knows the key can make such contents: it is a check, and no signature. As fast as memory is read.
class KeyedHash {
 public:
  using Key = std::array<uint64_t, 4>;
  /// Of the system's random source.
  static Key random_key();

  explicit KeyedHash(const Key& key);
  Digest of(std::span<const std::byte> bytes) const;
  /// The digest of the digests of pieces, which up to `threads` threads of the process's pool make. Throws Stopped
  /// where the calling thread's work is to stop.
  Digest of_large(std::span<const std::byte> bytes, int threads) const;

 private:
  static constexpr size_t kWords = 256;
  uint64_t words_[kWords];
  uint64_t points_[2];  // where the polynomials are evaluated
};

}  // namespace inferkit
