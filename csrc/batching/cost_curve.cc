#include "batching/cost_curve.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <memory>
#include <new>

namespace inferkit {
namespace {

constexpr uint32_t kEnough = 3;       // runs that make a curve known
constexpr Nanos kPause = 50'000'000;  // without a run for so long, or for as long as a few take
constexpr int kPauseRuns = 4;
constexpr float kOftenEnough = 20'000;  // of shorter runs, every kSeldom-th updates the figures
constexpr uint32_t kSeldom = 64;
constexpr double kUsual = 1.5;  // a first run of its size that takes no longer than that is like any other
constexpr double kLeeway = 1.25;
constexpr double kFarMore = 2, kFarLess = 0.5;
constexpr uint32_t kStreak = 3;

/// Of what is not negative. (std::lround is a call.)
Nanos whole(double nanos) { return static_cast<Nanos>(nanos + 0.5); }

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
  std::array<Run, kKept> sorted{};
  for (size_t i = 0; i < kept; ++i) {
    sorted[i] = {cell.took[i].load(std::memory_order_relaxed), cell.rows[i].load(std::memory_order_relaxed)};
  }
  const auto end = sorted.begin() + static_cast<std::ptrdiff_t>(kept);
  std::sort(sorted.begin(), end, [](const Run& a, const Run& b) { return a.took < b.took; });
  const Run median = sorted[(kept - 1) / 2];
  // What their sizes explain left out.
  std::array<double, kKept> excess{};
  for (size_t i = 0; i < kept; ++i) {
    excess[i] = std::max(0.0, sorted[i].took - (median.took + slope * (sorted[i].rows - median.rows)));
  }
  std::sort(excess.begin(), excess.begin() + static_cast<std::ptrdiff_t>(kept), std::greater<>());
  // One run tells nothing of the others. Of many, the slowest is left out: one must not make every deadline look too
  // tight.
  const float single = 0.5f * median.took;
  const auto at = [&](size_t i) { return kept == 1 ? single : static_cast<float>(excess[i]); };
  cell.median.store(median, std::memory_order_relaxed);
  cell.excess.store({.one_of_five = at(kept / 5), .rare = at(kept < 8 ? 0 : 1)}, std::memory_order_relaxed);
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

/// Whether a run that took `times` what was expected shows that the figures of its class no longer hold.
bool CostCurve::changed(Cell& cell, double times, bool paused) noexcept {
  const int sign = times > kFarMore ? 1 : times < kFarLess ? -1 : 0;
  const int before = cell.streak.load(std::memory_order_relaxed);
  const int streak = before * sign > 0 ? before + sign : sign;
  const bool enough = std::abs(streak) >= static_cast<int>(kStreak) || (paused && sign < 0);
  if (const int now = enough ? 0 : streak; now != before) cell.streak.store(now, std::memory_order_relaxed);
  return enough;
}

/// Keeps the last `kept` runs only.
void CostCurve::begin_anew(Cell& cell, uint32_t kept) noexcept {
  const uint32_t count = cell.count.load(std::memory_order_relaxed);
  kept = std::min(kept, count);
  std::array<float, kStreak> took{}, rows{};
  for (uint32_t i = 0; i < kept; ++i) {
    took[i] = cell.took[(count - kept + i) % kKept].load(std::memory_order_relaxed);
    rows[i] = cell.rows[(count - kept + i) % kKept].load(std::memory_order_relaxed);
  }
  for (uint32_t i = 0; i < kept; ++i) {
    cell.took[i].store(took[i], std::memory_order_relaxed);
    cell.rows[i].store(rows[i], std::memory_order_relaxed);
  }
  cell.count.store(kept, std::memory_order_relaxed);
}

bool CostCurve::learn(int64_t rows, Nanos took, Nanos now) noexcept {
  const size_t mine = class_of(rows);
  Cell* cell = cell_for(mine);
  if (!cell) return false;
  const auto sample = static_cast<float>(std::max<Nanos>(1, took));
  const auto before = static_cast<double>(typical(rows));
  const bool paused = now - took - last() > std::max(kPause, kPauseRuns * static_cast<Nanos>(before));
  last_.store(now, std::memory_order_relaxed);
  if (const int64_t recent = recent_rows(); rows != recent) {
    recent_.store(std::max(rows, recent - (recent - rows + 3) / 4), std::memory_order_relaxed);
  }
  const uint64_t bit = uint64_t{1} << ((rows - 1) & 63);
  const bool first = !(warm_.load(std::memory_order_relaxed) & bit);
  if (first) warm_.fetch_or(bit, std::memory_order_relaxed);
  const bool cold = first && (before == 0 || sample > kUsual * before);
  if (!cold && before > 0 && changed(*cell, sample / before, paused)) {
    // Runs that took long in a row stay together: the last one alone may be the slow one of many. A short one after a
    // pause is no such row.
    begin_anew(*cell, paused && sample < before ? 0 : kStreak - 1);
  }
  uint32_t number = cell->count.load(std::memory_order_relaxed);
  if (cold) {
    // Better than nothing, until the next.
    if (before > 0 || number > 0) return true;
    cell->median.store({sample, static_cast<float>(rows)}, std::memory_order_relaxed);
  } else {
    number = cell->count.load(std::memory_order_relaxed);
    cell->count.store(number + 1, std::memory_order_relaxed);  // of two at once one is lost, which costs less
    if (const uint32_t runs = runs_.load(std::memory_order_relaxed); runs < kEnough) {
      runs_.store(runs + 1, std::memory_order_relaxed);
    }
    cell->rows[number % kKept].store(static_cast<float>(rows), std::memory_order_relaxed);
    cell->took[number % kKept].store(sample, std::memory_order_relaxed);
    if (number < kKept || sample > kOftenEnough || number % kSeldom == 0) {
      summarise(*cell, number + 1, 0.5 * double(sample) / double(rows));
    }
    if (const auto fresh = static_cast<uint32_t>(mine + 1);
        number + 1 >= kEnough && fresh_.load(std::memory_order_relaxed) != fresh) {
      fresh_.store(fresh, std::memory_order_relaxed);
    }
  }
  if (const uint32_t own = 1u << mine; !(filled_.load(std::memory_order_relaxed) & own)) {
    filled_.fetch_or(own, std::memory_order_release);  // with what is in the cell
  }
  return number < kKept;
}

/// Medians stay where they are, for who looks at them at this moment; without its bit nobody looks at one any more.
void CostCurve::forget() noexcept {
  filled_.store(0, std::memory_order_relaxed);
  fresh_.store(0, std::memory_order_relaxed);
  runs_.store(0, std::memory_order_relaxed);
  warm_.store(0, std::memory_order_relaxed);
  for (auto& place : cells_) {
    Cell* cell = place.load(std::memory_order_acquire);
    if (!cell) continue;
    cell->count.store(0, std::memory_order_relaxed);
    cell->streak.store(0, std::memory_order_relaxed);
    cell->excess.store({}, std::memory_order_relaxed);
  }
}

CostCurve::Point CostCurve::point_of(const Cell& cell) {
  const Run median = cell.median.load(std::memory_order_relaxed);
  return {median.rows, median.took, cell.excess.load(std::memory_order_relaxed)};
}

/// Put right by the class that ran last.
double CostCurve::bounded(double typical, double rows) const {
  const uint32_t fresh = fresh_.load(std::memory_order_relaxed);
  if (fresh == 0) return typical;
  const Point p = point_of(*cell(fresh - 1));
  const double in_proportion = p.took * rows / p.rows;
  return rows > p.rows ? std::clamp(typical, p.took, std::max(p.took, kLeeway * in_proportion))
                       : std::clamp(typical, std::min(p.took, in_proportion / kLeeway), p.took);
}

Nanos CostCurve::measured(int64_t rows) const noexcept {
  const size_t mine = class_of(rows);
  const Cell* own = fresh_.load(std::memory_order_relaxed) == mine + 1 ? cell(mine) : nullptr;
  if (own) {  // fresh_ publishes nothing: it may be seen before the cell
    const Run median = own->median.load(std::memory_order_relaxed);
    if (static_cast<float>(rows) == median.rows) return whole(double(median.took));
  }
  const Forecast run = forecast(rows);
  return run.seen ? run.typical : 0;
}

Forecast CostCurve::forecast(int64_t rows) const noexcept {
  const uint32_t filled = filled_.load(std::memory_order_acquire);
  if (!filled) return {};
  const size_t mine = class_of(rows);
  const auto n = static_cast<double>(rows);
  const uint32_t own = filled & (1u << mine);
  uint32_t smaller = filled & ((1u << mine) - 1), larger = filled & ~((2u << mine) - 1);
  const bool known = runs_.load(std::memory_order_relaxed) >= kEnough;
  const uint32_t runs = own ? cell(mine)->count.load(std::memory_order_relaxed) : 0;
  const bool seen = runs > 0;
  const auto made = [&](double typical, Excess excess, bool reliable) {
    typical = bounded(typical, n);
    return Forecast{whole(typical), whole(typical + excess.one_of_five), whole(typical + excess.rare), seen, reliable,
                    runs >= kEnough};
  };
  if (own) {
    const Point p = point_of(*cell(mine));
    if (n == p.rows) return made(p.took, p.excess, known);
    (n < p.rows ? larger : smaller) |= own;
  }
  const auto below = static_cast<size_t>(std::bit_width(smaller)) - 1;
  const auto above = static_cast<size_t>(std::countr_zero(larger));
  if (smaller && larger) {
    const Point a = point_of(*cell(below)), b = point_of(*cell(above));
    const double part = std::clamp((n - a.rows) / std::max(1.0, b.rows - a.rows), 0.0, 1.0);
    return made(a.took + part * (b.took - a.took),
                {std::max(a.excess.one_of_five, b.excess.one_of_five), std::max(a.excess.rare, b.excess.rare)}, known);
  }
  if (smaller) {
    // Along the line of the last two, or half way between what a row costs at most and nothing.
    const Point a = point_of(*cell(below));
    double slope = 0.5 * a.took / a.rows;
    if (const uint32_t others = smaller & ~(1u << below)) {
      const Point b = point_of(*cell(static_cast<size_t>(std::bit_width(others)) - 1));
      slope = std::clamp((a.took - b.took) / std::max(1.0, a.rows - b.rows), 0.0, a.took / a.rows);
    }
    return made(a.took + slope * (n - a.rows), a.excess, known);
  }
  // Fewer rows may cost as much, and should cost less.
  const Point b = point_of(*cell(above));
  Forecast out = made(b.took * (0.5 + 0.5 * n / b.rows), b.excess, seen && known);
  out.high = std::max(out.high, whole(bounded(b.took, n) + b.excess.rare));
  return out;
}

}  // namespace inferkit
