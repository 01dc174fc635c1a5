#include <set>
#include <vector>

#include "memory/keyed_hash.h"
#include "test.h"

using namespace inferkit;

namespace {

std::vector<std::byte> ramp(size_t n) {
  std::vector<std::byte> out(n);
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<std::byte>(i * 7 + 3);
  return out;
}

const KeyedHash kHash({1, 2, 3, 4});

}  // namespace

TEST(digests_are_those_of_a_plain_reckoning) {
  // By integers of any size, in Python.
  CHECK((kHash.of(ramp(0)) == Digest{0x1919ac3bb9df2357, 0x1a2d1e7f9aedac16}));
  CHECK((kHash.of(ramp(1)) == Digest{0xd455ea73c2d57c7, 0x1ebd4b0c88748344}));
  CHECK((kHash.of(ramp(2048)) == Digest{0x519c287ee7a8ddd, 0xceba0a241e37328}));
  CHECK((kHash.of(ramp(5000)) == Digest{0x13b2bc68f9fcce9, 0xca627626828d0a5}));
}

TEST(every_bit_and_the_length_count) {
  std::set<Digest> seen;
  auto bytes = ramp(2500);
  size_t count = 0;
  for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    const auto mask = static_cast<std::byte>(1u << bit % 8);
    bytes[bit / 8] ^= mask;
    seen.insert(kHash.of(bytes));
    bytes[bit / 8] ^= mask;
    ++count;
  }
  const std::vector<std::byte> zeros(4100);
  for (size_t n = 0; n <= zeros.size(); ++n, ++count) seen.insert(kHash.of(std::span(zeros).first(n)));
  CHECK_EQ(seen.size(), count);
}

TEST(blocks_that_change_places_change_the_digest) {
  auto bytes = ramp(4096);
  for (size_t i = 0; i < 2048; ++i) bytes[i] = std::byte{1};
  const Digest before = kHash.of(bytes);
  std::swap_ranges(bytes.begin(), bytes.begin() + 2048, bytes.begin() + 2048);
  CHECK(kHash.of(bytes) != before);
}

TEST(keys_give_digests_of_their_own) {
  const auto a = KeyedHash::random_key(), b = KeyedHash::random_key();
  CHECK(a != b);
  CHECK(KeyedHash(a).of(ramp(100)) != KeyedHash(b).of(ramp(100)));
  CHECK(KeyedHash(a).of(ramp(100)) == KeyedHash(a).of(ramp(100)));
}

TEST(large_contents_give_one_digest_on_any_number_of_threads) {
  auto bytes = ramp((size_t{1} << 20) + 77);
  const Digest one = kHash.of_large(bytes, 1);
  CHECK(kHash.of_large(bytes, 4) == one);
  bytes[(size_t{1} << 20) + 3] ^= std::byte{1};
  CHECK(kHash.of_large(bytes, 4) != one);
  CHECK(kHash.of_large({}, 1) != kHash.of_large(ramp(1), 1));
}
