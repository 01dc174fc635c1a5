#include "batching/content.h"

#include <cstring>
#include <random>
#include <string_view>

namespace inferkit {
namespace {

__extension__ using Wide = unsigned __int128;

/// Both halves of the product: each bit of it hangs on most bits of both.
uint64_t fold(uint64_t a, uint64_t b) {
  const Wide product = Wide{a} * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

uint64_t word(const std::byte* at) {
  uint64_t out;
  std::memcpy(&out, at, sizeof out);
  return out;
}

std::span<const std::string_view> strings(const Content& of, size_t input) {
  const auto* first =
      reinterpret_cast<const std::string_view*>(of.inputs.data() + of.layout.offset(input, of.rows, of.length));
  return {first, of.layout.bytes(input, of.rows, of.length) / sizeof(std::string_view)};
}

/// Layouts that nobody uses are forgotten: the next one of the same shapes is another.
bool same_layout(const RowLayout& a, const RowLayout& b) noexcept {
  return &a == &b || (a.rows == b.rows && a.shared == b.shared);
}

}  // namespace

bool same_content(const Content& a, const Content& b) noexcept {
  if (a.rows != b.rows || a.length != b.length || !same_layout(a.layout, b.layout)) return false;
  for (size_t i = 0; i < a.ports.size(); ++i) {
    if (a.ports[i].dtype == DType::kString) {
      const auto mine = strings(a, i), other = strings(b, i);
      if (!std::equal(mine.begin(), mine.end(), other.begin(), other.end())) return false;
      continue;
    }
    const size_t at = a.layout.offset(i, a.rows, a.length), bytes = a.layout.bytes(i, a.rows, a.length);
    if (std::memcmp(a.inputs.data() + at, b.inputs.data() + at, bytes) != 0) return false;
  }
  return true;
}

ContentHash::ContentHash() {
  std::random_device device;
  for (uint64_t& key : key_) key = uint64_t{device()} << 32 | device();
}

/// Lanes that do not wait for one another: a multiplication takes some cycles, and one can begin in each.
uint64_t ContentHash::bytes(uint64_t seed, const std::byte* at, size_t count) const noexcept {
  constexpr size_t kPair = 2 * sizeof(uint64_t), kStride = kLanes * kPair;
  std::array<uint64_t, kLanes> lanes;
  lanes.fill(seed ^ count);
  size_t left = count;
  for (; left >= kStride; left -= kStride, at += kStride) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const std::byte* pair = at + lane * kPair;
      lanes[lane] = fold(word(pair) ^ key_[lane], word(pair + sizeof(uint64_t)) ^ lanes[lane]);
    }
  }
  std::array<std::byte, kStride> rest{};
  if (left) std::memcpy(rest.data(), at, left);
  uint64_t out = seed;
  for (size_t lane = 0; lane < kLanes; ++lane) {
    const std::byte* pair = rest.data() + lane * kPair;
    lanes[lane] = fold(word(pair) ^ key_[lane], word(pair + sizeof(uint64_t)) ^ lanes[lane]);
    out = fold(out ^ key_[lane], lanes[lane] ^ key_[(lane + 1) % kLanes]);
  }
  return out;
}

uint64_t ContentHash::of(const Content& content) const noexcept {
  uint64_t out = fold(static_cast<uint64_t>(content.rows) ^ key_[0], static_cast<uint64_t>(content.length) ^ key_[1]);
  for (size_t i = 0; i < content.ports.size(); ++i) {
    if (content.ports[i].dtype == DType::kString) {
      for (const std::string_view text : strings(content, i)) {
        out = bytes(out, reinterpret_cast<const std::byte*>(text.data()), text.size());
      }
      continue;
    }
    out = bytes(out, content.inputs.data() + content.layout.offset(i, content.rows, content.length),
                content.layout.bytes(i, content.rows, content.length));
  }
  return out;
}

}  // namespace inferkit
