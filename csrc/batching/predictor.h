// How long a batch will take.
#pragma once
#include <atomic>
#include <span>

#include "batching/layout.h"
#include "engine/runner.h"
#include "platform/clock.h"

namespace inferkit {

/// The runner's own estimate, corrected by how its estimates have fared: the runner knows how cost grows with a shape,
/// the clock knows this machine. Lock-free; a lost update is one sample less.
class Predictor {
 public:
  explicit Predictor(const Runner& runner) : runner_(runner) {}

  Nanos predict(const RowLayout& layout, int64_t rows) const noexcept;
  void learn(const RowLayout& layout, int64_t rows, Nanos measured) noexcept;

 private:
  double estimate(const RowLayout& layout, int64_t rows) const noexcept;

  const Runner& runner_;
  std::atomic<double> ratio_{1};   // measured to estimated, an exponentially weighted mean
  std::atomic<uint32_t> runs_{0};  // up to 2
};

}  // namespace inferkit
