#include "batching/reserve.h"

#include <algorithm>

namespace inferkit {
namespace {

constexpr int64_t kWhole = 1 << 24, kOneIn = 1024;
constexpr int64_t kStep = kWhole / 256, kMost = kWhole / 3;

}  // namespace

// The order of two threads does not matter, and a step beyond a bound is taken back by the next ones.
void Reserve::learn(bool late) noexcept {
  const int64_t now = units_.load(std::memory_order_relaxed);
  if (late && now < kMost) units_.fetch_add(kStep, std::memory_order_relaxed);
  if (!late && now > 0) units_.fetch_sub(kStep / kOneIn, std::memory_order_relaxed);
}

double Reserve::part() const noexcept {
  return double(std::clamp<int64_t>(units_.load(std::memory_order_relaxed), 0, kMost)) / double(kWhole);
}

}  // namespace inferkit
