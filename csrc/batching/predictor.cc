#include "batching/predictor.h"

#include <algorithm>
#include <array>
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
    for (size_t i = 0; i < count; ++i) {
      shapes[i] = layout.rows[i];
      shapes[i].insert(0, rows);
    }
    return double(std::max<int64_t>(1, runner_.estimate_nanos({shapes, count})));
  } catch (...) {
    return kUnknown;  // no memory
  }
}

Nanos Predictor::predict(const RowLayout& layout, int64_t rows) const noexcept {
  return static_cast<Nanos>(estimate(layout, rows) * ratio_.load(std::memory_order_relaxed));
}

void Predictor::learn(const RowLayout& layout, int64_t rows, Nanos measured) noexcept {
  const uint32_t runs = runs_.load(std::memory_order_relaxed);
  if (runs < 2) runs_.store(runs + 1, std::memory_order_relaxed);
  if (runs == 0) return;  // the first one also compiles, faults pages in and warms caches
  const double sample = double(std::max<Nanos>(1, measured)) / estimate(layout, rows);
  const double old = ratio_.load(std::memory_order_relaxed);
  // One preemption must not turn a 5 us model into a 5 ms one: a sample counts for at most four times what was
  // expected.
  ratio_.store(runs == 1 ? sample : old + (std::min(sample, 4 * old) - old) / 8, std::memory_order_relaxed);
}

}  // namespace inferkit
