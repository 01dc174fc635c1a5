#include "batching/slice_choice.h"

#include <algorithm>

namespace inferkit {
namespace {

constexpr uint32_t kOneOf = 20;  // runs may be longer
constexpr Nanos kMuchShorter = 4;

void add_one(std::atomic<uint32_t>& to) noexcept {
  to.store(to.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

}  // namespace

void SliceChoice::run(Nanos likely) noexcept {
  if (likely <= 0) return;
  size_t step = 0;
  while (step + 1 < kSteps && likely > kShortestSlice << step) ++step;
  add_one(counts_[step]);
  add_one(runs_);
  const uint32_t runs = runs_.load(std::memory_order_relaxed);
  if (runs >= next_.load(std::memory_order_relaxed)) choose(runs);
}

void SliceChoice::choose(uint32_t runs) noexcept {
  uint32_t longer = 0;
  size_t step = kSteps;
  while (step > 1 && longer <= runs / kOneOf) longer += counts_[--step].load(std::memory_order_relaxed);
  if (longer <= runs / kOneOf) step = 0;
  const Nanos fits = kShortestSlice << step, now = wanted();
  if (fits > now || kMuchShorter * fits <= now) wanted_.store(fits, std::memory_order_relaxed);
  for (auto& count : counts_) count.store(0, std::memory_order_relaxed);
  runs_.store(0, std::memory_order_relaxed);
  next_.store(std::min(2 * next_.load(std::memory_order_relaxed), kLast), std::memory_order_relaxed);
}

}  // namespace inferkit
