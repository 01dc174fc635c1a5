// What runs of one layout take, by their number of rows: learnt from those that were.
#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "platform/clock.h"

namespace inferkit {

/// What a run is likely to take. Zeros where nothing is known at all.
struct Forecast {
  Nanos typical = 0;     // the median
  Nanos likely = 0;      // that, or less, four times of five: to judge one request of many
  Nanos high = 0;        // rarely more: for who must be in time
  bool seen = false;     // rests on runs of about this size, not on a guess from others
  bool known = false;    // on several, of this size or smaller: enough to refuse a request for it
  bool settled = false;  // on several of about this size
};

/// Sizes fall into classes of at most half an octave. Each class keeps its last runs; its point is their median, which
/// is moved neither by one slow run nor by the first ones of each size, which also compile, fault pages in and warm
/// caches. Several runs in a row that take far more or far less than expected make it begin anew: the machine has
/// changed. Nobody looks at a figure that keeps everybody away, so after a pause one short run is enough for that.
/// Between the points it is a straight line. More rows cost more, but not more than in proportion: by that the class
/// that ran last puts right those that have not run for long. Thread-safe and lock-free; allocates for the first run of
/// a class only, and without memory forgets that. Relaxed throughout: figures, which order nothing; a lost update is
/// one run less.
class CostCurve {
 public:
  CostCurve() = default;
  ~CostCurve();
  CostCurve(const CostCurve&) = delete;
  CostCurve& operator=(const CostCurve&) = delete;

  /// A run of `rows` that was over at `now`. True where it is one of the first few of its class.
  bool learn(int64_t rows, Nanos took, Nanos now) noexcept;
  /// Runs are another model's from now on. Not while another thread learns.
  void forget() noexcept;
  Forecast forecast(int64_t rows) const noexcept;
  /// Of a forecast, where it is seen; else 0. For the size that ran last it costs less to find.
  Nanos measured(int64_t rows) const noexcept;
  /// The same of any forecast.
  Nanos typical(int64_t rows) const noexcept {
    const Nanos known = measured(rows);
    return known ? known : forecast(rows).typical;
  }
  /// Whether a run of that many rows, or of 64, 128... more, has been learnt.
  bool has_run(int64_t rows) const noexcept { return warm_.load(std::memory_order_relaxed) >> ((rows - 1) & 63) & 1; }
  /// When the last run was over.
  Nanos last() const noexcept { return last_.load(std::memory_order_relaxed); }
  /// The most rows that runs have had lately; smaller ones bring it down by and by.
  int64_t recent_rows() const noexcept { return recent_.load(std::memory_order_relaxed); }

  static constexpr size_t kClasses = 24;  // up to 4096 rows; the last one takes the rest
  static size_t class_of(int64_t rows);
  /// The most rows of a class.
  static int64_t top_of(size_t size_class);

 private:
  static constexpr uint32_t kKept = 16;  // runs

  template <class T>
  using Figure = std::atomic<T>;

  struct Run {
    float took, rows;
  };
  /// How much longer than the median one run of five takes, and hardly any. An amount, as what slows runs down (a
  /// preemption, a wait for a lock) does not grow with them.
  struct Excess {
    float one_of_five, rare;
  };
  static_assert(std::atomic<Run>::is_always_lock_free && std::atomic<Excess>::is_always_lock_free);
  struct Cell {
    std::array<Figure<float>, kKept> took{}, rows{};
    Figure<uint32_t> count{0};
    Figure<Run> median{};     // zeros where there is none yet
    Figure<Excess> excess{};  // one figure, so that nobody reads half of an old one and half of a new one
    // Runs in a row that took far more (positive) or far less (negative) than expected.
    Figure<int> streak{0};
  };
  struct Point {
    double rows, took;
    Excess excess;
  };

  Cell* cell_for(size_t size_class) noexcept;
  const Cell* cell(size_t size_class) const { return cells_[size_class].load(std::memory_order_acquire); }
  static Point point_of(const Cell& cell);
  void summarise(Cell& cell, uint32_t runs, double slope) noexcept;
  static void begin_anew(Cell& cell, uint32_t runs) noexcept;
  static bool changed(Cell& cell, double times, bool paused) noexcept;
  double bounded(double typical, double rows) const;

  std::array<std::atomic<Cell*>, kClasses> cells_{};  // owned
  Figure<uint32_t> filled_{0};                        // a bit for each cell that has a point
  Figure<uint32_t> runs_{0};                          // in all cells, up to kEnough
  Figure<Nanos> last_{0};                             // when something ran
  Figure<int64_t> recent_{0};                         // rows
  Figure<uint64_t> warm_{0};                          // a bit for each number of rows, modulo 64, that has run
  Figure<uint32_t> fresh_{0};                         // one more than the class that ran last; 0: none
};

}  // namespace inferkit
