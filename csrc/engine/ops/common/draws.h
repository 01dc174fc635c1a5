// Random numbers that depend on a key and on their own place alone: Philox 4x32-10 (Salmon et al., "Parallel random
// numbers: as easy as 1, 2, 3") counts places, and what is made of its words uses sums, products and roots of doubles,
// which every machine rounds alike; the C library's functions differ between machines.
#pragma once
#include <array>
#include <cstdint>

#include "graph/op_schema.h"

namespace inferkit {

using PhiloxWords = std::array<uint32_t, 4>;

constexpr PhiloxWords philox(PhiloxWords counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xd251'1f53} * counter[0], b = uint64_t{0xcd9e'8d57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key0, static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key1, static_cast<uint32_t>(a)};
    key0 += 0x9e37'79b9;
    key1 += 0xbb67'ae85;
  }
  return counter;
}

/// What tells the draws of a node from those of others: its attribute 'seed' or, where it has none, its place in the
/// graph. `integer`: the seed is an integer, else a float.
uint64_t draw_key(const NodeContext& c, bool integer = false);

/// One sequence of draws.
class Draws {
 public:
  Draws(uint64_t key, uint64_t stream) : key_(key), stream_(stream) {}

  /// Calls f(place, word) for the places in [first, last), in order.
  template <class F>
  void words(int64_t first, int64_t last, F&& f) const {
    for (int64_t at = first; at < last;) {
      const PhiloxWords block = at_block(static_cast<uint64_t>(at) / 4);
      for (auto lane = static_cast<size_t>(at % 4); lane < 4 && at < last; ++lane, ++at) f(at, block[lane]);
    }
  }
  /// The same with words of 64 bits.
  template <class F>
  void long_words(int64_t first, int64_t last, F&& f) const {
    for (int64_t at = first; at < last;) {
      const PhiloxWords block = at_block(static_cast<uint64_t>(at) / 2);
      for (auto lane = static_cast<size_t>(at % 2); lane < 2 && at < last; ++lane, ++at) {
        f(at, uint64_t{block[2 * lane + 1]} << 32 | block[2 * lane]);
      }
    }
  }

 private:
  PhiloxWords at_block(uint64_t block) const {
    return philox({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), static_cast<uint32_t>(stream_),
                   static_cast<uint32_t>(stream_ >> 32)},
                  static_cast<uint32_t>(key_), static_cast<uint32_t>(key_ >> 32));
  }

  uint64_t key_, stream_;
};

/// A number strictly between 0 and 1, in the middle of the range that the word stands for.
inline double between(uint32_t word) { return (static_cast<double>(word) + 0.5) * 0x1p-32; }
inline double between(uint64_t word) { return (static_cast<double>(word >> 12) + 0.5) * 0x1p-52; }

/// The natural logarithm of a positive normal number, to a few units of the last place.
double plain_log(double x);
/// e to the power of x <= 0; 0 below -708.
double plain_exp(double x);
/// The standard normal distribution's quantile (Wichura's AS 241): what a uniform draw becomes to be a normal one.
double normal_quantile(double p);

}  // namespace inferkit
