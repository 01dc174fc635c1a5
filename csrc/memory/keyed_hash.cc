#include "memory/keyed_hash.h"

#include <sys/random.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <vector>

#include "platform/run_control.h"
#include "platform/thread_pool.h"

namespace inferkit {
namespace {

__extension__ using Wide = unsigned __int128;

/// The field of the polynomials.
constexpr uint64_t kPrime = (uint64_t{1} << 61) - 1;

uint64_t times_plus(uint64_t a, uint64_t b, uint64_t c) {
  const Wide wide = static_cast<Wide>(a) * b + c;
  const uint64_t sum = (static_cast<uint64_t>(wide) & kPrime) + static_cast<uint64_t>(wide >> 61);
  return sum >= kPrime ? sum - kPrime : sum;
}

/// A key becomes as many words as are needed: Vigna's splitmix64.
uint64_t next(uint64_t& state) {
  uint64_t z = (state += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

Wide product(const std::byte* at, const uint64_t* key) {
  uint64_t a, b;
  std::memcpy(&a, at, sizeof(a));
  std::memcpy(&b, at + sizeof(a), sizeof(b));
  return static_cast<Wide>(a + key[0]) * (b + key[1]);
}

}  // namespace

KeyedHash::Key KeyedHash::random_key() {
  Key key;
  size_t done = 0;
  while (done < sizeof(key)) {
    const ssize_t got = ::getrandom(reinterpret_cast<std::byte*>(key.data()) + done, sizeof(key) - done, 0);
    if (got < 0 && errno != EINTR) throw std::system_error(errno, std::generic_category(), "getrandom");
    if (got > 0) done += static_cast<size_t>(got);
  }
  return key;
}

KeyedHash::KeyedHash(const Key& key) {
  uint64_t states[4];
  std::copy(key.begin(), key.end(), states);
  for (size_t i = 0; i < kWords; ++i) words_[i] = next(states[i % 4]);
  for (uint64_t& point : points_) point = (next(states[0]) ^ next(states[1])) % kPrime;
}

Digest KeyedHash::of(std::span<const std::byte> bytes) const {
  constexpr size_t kBlock = kWords * sizeof(uint64_t);
  uint64_t h0 = 1, h1 = 1;
  const auto take = [&](uint64_t value) {
    h0 = times_plus(h0, points_[0], value);
    h1 = times_plus(h1, points_[1], value);
  };
  const auto block = [&](const std::byte* at) {
    Wide sums[2] = {0, 0};
    for (size_t w = 0; w < kWords; w += 4) {
      sums[0] += product(at + w * sizeof(uint64_t), words_ + w);
      sums[1] += product(at + (w + 2) * sizeof(uint64_t), words_ + w + 2);
    }
    const Wide sum = sums[0] + sums[1];
    take(static_cast<uint64_t>(sum) & kPrime);
    take(static_cast<uint64_t>(sum >> 61) & kPrime);
    take(static_cast<uint64_t>(sum >> 122));
  };
  size_t at = 0;
  for (; bytes.size() - at >= kBlock; at += kBlock) block(bytes.data() + at);
  if (at < bytes.size()) {
    std::byte rest[kBlock] = {};
    std::memcpy(rest, bytes.data() + at, bytes.size() - at);
    block(rest);
  }
  take(bytes.size() & kPrime);  // what was filled up differs from what ends in zeros
  return {h0, h1};
}

Digest KeyedHash::of_large(std::span<const std::byte> bytes, int threads) const {
  constexpr size_t kPiece = size_t{256} << 10, kAtOnce = 256;
  const size_t count = (bytes.size() + kPiece - 1) / kPiece;
  std::vector<Digest> digests(count);
  for (size_t first = 0; first < count; first += kAtOnce) {
    const auto one = [&](int64_t i) {
      const size_t piece = first + static_cast<size_t>(i), begin = piece * kPiece;
      digests[piece] = of(bytes.subspan(begin, std::min(kPiece, bytes.size() - begin)));
    };
    ThreadPool::process().parallel_for(static_cast<int64_t>(std::min(kAtOnce, count - first)), threads, one);
    RunControl::check();
  }
  return of(std::as_bytes(std::span(digests)));
}

}  // namespace inferkit
