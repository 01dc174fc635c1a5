// How long a batch will take.
#pragma once
#include <atomic>
#include <span>

#include "batching/layout.h"
#include "engine/runner.h"
#include "platform/clock.h"
#include "platform/thread_pool.h"

namespace inferkit {

/// What a layout's own runs took, where there were any; else a guess from those of others. Lock-free; a lost update is
/// one sample less.
class Predictor {
 public:
  explicit Predictor(const Runner& runner) : runner_(runner), generation_(runner.generation()) {}

  /// For what is cheap to get wrong. Without runs of this layout, the runner's own estimate, corrected by how its
  /// estimates have fared: the runner knows how cost grows with a shape, the clock knows this machine.
  /// kNever where values decide: a run of which nothing is known is nobody's to make beside other work.
  Nanos predict(const RowLayout& layout, int64_t rows) const noexcept;
  /// For deadlines; asks nobody, so it may be called under a lock. Without runs of this layout, by the size of its
  /// rows.
  /// forecast(layout, rows).typical.
  Nanos typical(const RowLayout& layout, int64_t rows) const noexcept;
  Forecast forecast(const RowLayout& layout, int64_t rows) const noexcept;
  /// That a run may use.
  int threads() const noexcept { return runner_.threads(); }
  /// Nothing of this layout has run lately, or nothing at all for a while: what is known of it is better checked than
  /// trusted.
  bool stale(const RowLayout& layout, Nanos now) const noexcept;
  /// A run that was over at `now`, of the model of that generation. Where that is not the one to learn of, nothing is.
  void learn(const RowLayout& layout, int64_t rows, Nanos took, Nanos now, uint64_t generation = 0) noexcept;
  /// From now on runs of the model of that generation are learnt of, and nothing is known of any. `forget_layouts` does
  /// that for the curves of layouts, while nothing is learnt. One thread at a time.
  void follow(uint64_t generation, FunctionRef<void()> forget_layouts) noexcept;

 private:
  static constexpr uint64_t kNobody = ~uint64_t{0};

  void learn_now(const RowLayout& layout, int64_t rows, Nanos took, Nanos now) noexcept;
  double estimate(const RowLayout& layout, int64_t rows) const noexcept;

  const Runner& runner_;
  std::atomic<double> ratio_{1};     // measured to estimated, an exponentially weighted mean
  std::atomic<double> per_byte_{0};  // nanoseconds, the same; 0: nothing has run
  std::atomic<uint32_t> runs_{0};    // up to 2
  std::atomic<Nanos> last_{0};       // when one was over
  // Sequentially consistent: who learns is seen here by follow(), or sees that another model is learnt of.
  std::atomic<uint64_t> generation_;
  std::atomic<uint32_t> learning_{0};  // threads, each for a moment
};

}  // namespace inferkit
