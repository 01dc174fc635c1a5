#include "batching/predictor.h"

#include <algorithm>
#include <array>
#include <thread>
#include <vector>

namespace inferkit {

double Predictor::estimate(const RowLayout& layout, int64_t rows) const noexcept {
  constexpr double kUnknown = 1e6;
  try {
    std::array<Shape, 8> few;
    std::vector<Shape> many;
    const size_t count = layout.rows.size();
    if (count > few.size()) many.resize(count);
    Shape* shapes = count > few.size() ? many.data() : few.data();
    for (size_t i = 0; i < count; ++i) shapes[i] = layout.shape(i, layout.run_rows(rows));
    return double(std::max<int64_t>(1, runner_.estimate_nanos({shapes, count})));
  } catch (...) {
    return kUnknown;  // no memory
  }
}

Nanos Predictor::predict(const RowLayout& layout, int64_t rows) const noexcept {
  if (runner_.values_decide()) return kNever;
  if (const Nanos learnt = layout.cost.measured(rows)) return learnt;
  return static_cast<Nanos>(estimate(layout, rows) * ratio_.load(std::memory_order_relaxed));
}

Nanos Predictor::typical(const RowLayout& layout, int64_t rows) const noexcept {
  const Nanos learnt = layout.cost.typical(rows);
  return learnt ? learnt : forecast(layout, rows).typical;
}

Forecast Predictor::forecast(const RowLayout& layout, int64_t rows) const noexcept {
  Forecast learnt = layout.cost.forecast(rows);
  if (learnt.typical) return learnt;
  const auto bytes = double(layout.bytes_per_row() * static_cast<size_t>(rows));
  learnt.typical = static_cast<Nanos>(bytes * per_byte_.load(std::memory_order_relaxed));
  learnt.likely = learnt.high = 2 * learnt.typical;
  return learnt;
}

bool Predictor::stale(const RowLayout& layout, Nanos now) const noexcept {
  constexpr Nanos kPause = 50'000'000, kLong = 1'000'000'000;
  const Nanos few_runs = 4 * forecast(layout, 1).typical;
  return now - last_.load(std::memory_order_relaxed) > std::max(kPause, few_runs) ||
         now - layout.cost.last() > std::max(kLong, few_runs);
}

void Predictor::learn(const RowLayout& layout, int64_t rows, Nanos took, Nanos now, uint64_t generation) noexcept {
  learning_.fetch_add(1);
  if (generation_.load() == generation) learn_now(layout, rows, took, now);
  learning_.fetch_sub(1);
}

void Predictor::follow(uint64_t generation, FunctionRef<void()> forget_layouts) noexcept {
  generation_.store(kNobody);
  while (learning_.load() != 0) std::this_thread::yield();
  forget_layouts();
  ratio_.store(1, std::memory_order_relaxed);
  per_byte_.store(0, std::memory_order_relaxed);
  runs_.store(0, std::memory_order_relaxed);
  generation_.store(generation);
}

void Predictor::learn_now(const RowLayout& layout, int64_t rows, Nanos took, Nanos now) noexcept {
  last_.store(now, std::memory_order_relaxed);
  if (!layout.cost.learn(rows, took, now)) return;  // it knows by itself
  const uint32_t runs = runs_.load(std::memory_order_relaxed);
  if (runs < 2) runs_.store(runs + 1, std::memory_order_relaxed);
  if (runs == 0) return;  // the first one also compiles, faults pages in and warms caches
  const auto measured = double(std::max<Nanos>(1, took));
  // One preemption must not turn a 5 us model into a 5 ms one: a sample counts for at most four times what was
  // expected.
  const auto move = [&](std::atomic<double>& mean, double sample) {
    const double old = mean.load(std::memory_order_relaxed);
    mean.store(runs == 1 ? sample : old + (std::min(sample, 4 * old) - old) / 8, std::memory_order_relaxed);
  };
  move(ratio_, measured / estimate(layout, rows));
  move(per_byte_, measured / double(std::max<size_t>(1, layout.bytes_per_row() * static_cast<size_t>(rows))));
}

}  // namespace inferkit
