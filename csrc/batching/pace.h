// How the requests of one layout are best batched, learnt while they run.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>

#include "batching/company.h"
#include "batching/cost_curve.h"

namespace inferkit {

/// What is learnt: nothing for Fixed.
struct PaceOptions {
  bool sizes = false;    // how many rows pay
  bool company = false;  // whether a free worker waits for others
};

/// What a pace has come to, and what it rests on.
struct PaceFigures {
  int64_t pays = 0;     // rows of a batch; 0: nothing has run
  int64_t most = 0;     // that it might have
  Nanos company = 0;    // for how long a free worker waits for others, at most
  Nanos alone = 0;      // a run of one row, where that is known
  Nanos of_paying = 0;  // a run of as many as pay
  Nanos of_most = 0;    // and of as many as may be
};

/// Until something is learnt all rows pay and nobody waits. Not thread-safe: the lock of the queue of its layout guards
/// it. What it knows of runs it asks the layout's curve for.
class Pace {
 public:
  /// More rows than these do not pay.
  int64_t pays() const { return pays_; }

  /// The rows of the next batch where `rows` might go: most often all of them. Now and then a size of which nothing is
  /// known is tried, or one whose figures may be out of date: a few batches of some hundred.
  int64_t next(int64_t rows, int64_t first) const {
    if (tries_ == 0 || count_ % kTries != kTries - 1) return std::min(rows, std::max(pays_, first));
    return std::min(rows, std::max(tries_, first));
  }

  /// A batch could go to the only free worker.
  void could_go(Nanos now, int64_t rows, int64_t most, const CostCurve& curve) noexcept {
    until_ = 0;
    if (!company_) return;
    company_->could_go(now, rows, std::min(most, pays_), [&](int64_t n) { return curve.forecast(n); });
    if (const Gathering& gathering = company_->gathering(); gathering.span > 0) {
      until_ = now + gathering.span;
      expected_ = rows + gathering.rows;
    }
  }
  /// Whether one of `rows` that could go now would wait.
  bool would_wait(int64_t rows) const { return company_ && company_->gathering(rows).span > 0; }
  void came(Nanos now, int64_t rows) noexcept {
    if (company_) company_->came(now, rows);
  }
  /// Until when the batch that could go at last waits, and for how many rows in all; 0 where it does not.
  Nanos until() const { return until_; }
  int64_t expected() const { return expected_; }

  /// A batch went. True where its figures were found anew.
  bool went(const PaceOptions& options, int64_t most, const CostCurve& curve) noexcept {
    until_ = 0;
    return ++count_ % kRenewed == 0 && renew(options, most, curve);
  }
  PaceFigures figures(int64_t most, const CostCurve& curve) const noexcept;

 private:
  static constexpr uint32_t kRenewed = 16, kTries = 64;  // batches

  bool renew(const PaceOptions& options, int64_t most, const CostCurve& curve) noexcept;

  int64_t pays_ = std::numeric_limits<int64_t>::max();
  int64_t tries_ = 0;  // rows; 0: none
  uint32_t count_ = 0;
  Nanos until_ = 0;
  int64_t expected_ = 0;
  std::unique_ptr<Companions> company_;  // where runs take so long that it matters
};

}  // namespace inferkit
