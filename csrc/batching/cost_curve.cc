#include "batching/cost_curve.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>
#include <new>
#include <utility>

namespace inferkit {
namespace {

constexpr uint32_t kEnough = 3;       // runs that make a curve known
constexpr Nanos kPause = 50'000'000;  // without a run for so long, or for as long as a few take
constexpr int kPauseRuns = 4;
constexpr float kOftenEnough = 20'000;  // shorter runs update the figures with every eighth of them only
constexpr double kUsual = 1.5;          // a first run of its size that takes no longer than that is like any other
constexpr double kFarMore = 2, kFarLess = 0.5;
constexpr int kStreak = 3;

Nanos whole(double nanos) { return static_cast<Nanos>(std::lround(nanos)); }

}  // namespace

CostCurve::~CostCurve() {
  for (auto& cell : cells_) delete cell.load(std::memory_order_relaxed);
}

size_t CostCurve::class_of(int64_t rows) {
  if (rows <= 1) return 0;
  const int octave = std::bit_width(static_cast<uint64_t>(rows - 1)) - 1;  // 2^octave < rows <= 2^(octave + 1)
  const bool upper_half = 2 * rows > 3 * (int64_t{1} << octave);
  return std::min(static_cast<size_t>(2 * octave + upper_half), kClasses - 1);
}

int64_t CostCurve::top_of(size_t size_class) {
  if (size_class == 0) return 1;
  const int64_t octave = int64_t{1} << (size_class / 2);
  return size_class % 2 ? 2 * octave : octave + octave / 2;
}

void CostCurve::summarise(Cell& cell, uint32_t runs, double slope) noexcept {
  const size_t kept = std::min(runs, kKept);
  struct Run {
    float took, rows;
  };
  std::array<Run, kKept> sorted{};
  for (size_t i = 0; i < kept; ++i) {
    sorted[i] = {cell.took[i].load(std::memory_order_relaxed), cell.rows[i].load(std::memory_order_relaxed)};
  }
  const auto end = sorted.begin() + static_cast<std::ptrdiff_t>(kept);
  std::sort(sorted.begin(), end, [](const Run& a, const Run& b) { return a.took < b.took; });
  const Run median = sorted[(kept - 1) / 2];
  // What their sizes explain left out. The second of many: one slow run must not make every deadline look too tight.
  double most = 1, second = 1;
  for (size_t i = 0; i < kept; ++i) {
    const double expected = std::max(0.5 * median.took, median.took + slope * (sorted[i].rows - median.rows));
    const double times = sorted[i].took / expected;
    if (times > most) {
      second = std::exchange(most, times);
    } else {
      second = std::max(second, times);
    }
  }
  cell.typical.store(median.took, std::memory_order_relaxed);
  cell.at.store(median.rows, std::memory_order_relaxed);
  cell.slow.store(static_cast<float>(kept == 1 ? 1.5 : kept < 8 ? most : second), std::memory_order_relaxed);
}

CostCurve::Cell* CostCurve::cell_for(size_t size_class) noexcept {
  std::atomic<Cell*>& place = cells_[size_class];
  Cell* cell = place.load(std::memory_order_acquire);  // with its contents
  if (cell) return cell;
  std::unique_ptr<Cell> made(new (std::nothrow) Cell);
  if (!made) return nullptr;
  if (!place.compare_exchange_strong(cell, made.get(), std::memory_order_acq_rel)) return cell;
  return made.release();
}

void CostCurve::change(double times) noexcept {
  const auto scale = [&](Figure<float>& figure) {
    figure.store(static_cast<float>(figure.load(std::memory_order_relaxed) * times), std::memory_order_relaxed);
  };
  for (size_t i = 0; i < kClasses; ++i) {
    Cell* of = cells_[i].load(std::memory_order_acquire);
    if (!of) continue;
    scale(of->typical);
    for (Figure<float>& took : of->took) scale(took);
  }
}

/// Whether a run that took `times` what was expected is the one that makes it a change; changes the curve then.
bool CostCurve::changed(double times, bool paused) noexcept {
  const int sign = times > kFarMore ? 1 : times < kFarLess ? -1 : 0;
  int streak = streak_.load(std::memory_order_relaxed);
  if (sign == 0) {
    if (streak != 0) streak_.store(0, std::memory_order_relaxed);
    return false;
  }
  const bool longer = streak * sign > 0;
  double least = times;
  if (longer) {
    const double before = least_.load(std::memory_order_relaxed);
    least = sign > 0 ? std::min(times, before) : std::max(times, before);
  }
  streak = longer ? streak + sign : sign;
  const bool enough = std::abs(streak) >= kStreak || (paused && sign < 0);
  if (enough) change(least);
  streak_.store(enough ? 0 : streak, std::memory_order_relaxed);
  least_.store(static_cast<float>(least), std::memory_order_relaxed);
  return enough;
}

bool CostCurve::learn(int64_t rows, Nanos took, Nanos now) noexcept {
  const size_t mine = class_of(rows);
  Cell* cell = cell_for(mine);
  if (!cell) return false;
  const auto sample = static_cast<float>(std::max<Nanos>(1, took));
  const auto before = static_cast<double>(forecast(rows).typical);
  const bool paused = now - last() > std::max(kPause, kPauseRuns * static_cast<Nanos>(before));
  last_.store(now, std::memory_order_relaxed);
  const uint64_t bit = uint64_t{1} << ((rows - 1) & 63);
  const bool first = !(warm_.load(std::memory_order_relaxed) & bit);
  if (first) warm_.fetch_or(bit, std::memory_order_relaxed);
  const bool cold = first && (before == 0 || sample > kUsual * before);
  if (!cold && before > 0) changed(sample / before, paused);
  uint32_t number = cell->count.load(std::memory_order_relaxed);
  if (cold) {
    // Better than nothing, until the next.
    if (before > 0 || number > 0) return true;
    cell->typical.store(sample, std::memory_order_relaxed);
    cell->at.store(static_cast<float>(rows), std::memory_order_relaxed);
  } else {
    number = cell->count.fetch_add(1, std::memory_order_relaxed);
    if (const uint32_t runs = runs_.load(std::memory_order_relaxed); runs < kEnough) runs_.store(runs + 1);
    cell->rows[number % kKept].store(static_cast<float>(rows), std::memory_order_relaxed);
    cell->took[number % kKept].store(sample, std::memory_order_relaxed);
    if (number < kKept || sample > kOftenEnough || number % 8 == 0) {
      summarise(*cell, number + 1, 0.5 * double(sample) / double(rows));
    }
  }
  if (const uint32_t own = 1u << mine; !(filled_.load(std::memory_order_relaxed) & own)) {
    filled_.fetch_or(own, std::memory_order_release);  // with what is in the cell
  }
  return number < kKept;
}

CostCurve::Point CostCurve::point_of(const Cell& cell) {
  return {cell.at.load(std::memory_order_relaxed), cell.typical.load(std::memory_order_relaxed),
          cell.slow.load(std::memory_order_relaxed)};
}

Forecast CostCurve::forecast(int64_t rows) const noexcept {
  const uint32_t filled = filled_.load(std::memory_order_acquire);
  if (!filled) return {};
  const size_t mine = class_of(rows);
  const auto n = static_cast<double>(rows);
  const uint32_t own = filled & (1u << mine);
  uint32_t smaller = filled & ((1u << mine) - 1), larger = filled & ~((2u << mine) - 1);
  const auto made = [](double typical, double slow, bool seen, bool known) {
    return Forecast{whole(typical), whole(typical * slow), seen, known};
  };
  const bool known = runs_.load(std::memory_order_relaxed) >= kEnough;
  const bool seen = own && cell(mine)->count.load(std::memory_order_relaxed) > 0;
  if (own) {
    const Point p = point_of(*cell(mine));
    if (n == p.rows) return made(p.took, p.slow, seen, known);
    (n < p.rows ? larger : smaller) |= own;
  }
  const auto below = static_cast<size_t>(std::bit_width(smaller)) - 1;
  const auto above = static_cast<size_t>(std::countr_zero(larger));
  if (smaller && larger) {
    const Point a = point_of(*cell(below)), b = point_of(*cell(above));
    const double part = std::clamp((n - a.rows) / std::max(1.0, b.rows - a.rows), 0.0, 1.0);
    return made(a.took + part * (b.took - a.took), std::max(a.slow, b.slow), seen, known);
  }
  if (smaller) {
    // Along the line of the last two, or half way between what a row costs at most and nothing.
    const Point a = point_of(*cell(below));
    double slope = 0.5 * a.took / a.rows;
    if (const uint32_t others = smaller & ~(1u << below)) {
      const Point b = point_of(*cell(static_cast<size_t>(std::bit_width(others)) - 1));
      slope = std::clamp((a.took - b.took) / std::max(1.0, a.rows - b.rows), 0.0, a.took / a.rows);
    }
    return made(a.took + slope * (n - a.rows), a.slow, seen, known);
  }
  // Fewer rows may cost as much, and should cost less.
  const Point b = point_of(*cell(above));
  Forecast out = made(b.took, b.slow, seen, seen && known);
  out.typical = whole(b.took * (0.5 + 0.5 * n / b.rows));
  return out;
}

}  // namespace inferkit
