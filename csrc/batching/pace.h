// How the requests of one layout are best batched, learnt while they run.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>

#include "batching/company.h"
#include "batching/cost_curve.h"
#include "batching/target.h"

namespace inferkit {

/// What is learnt: nothing for Fixed.
struct PaceOptions {
  bool sizes = false;            // how many rows pay
  bool company = false;          // whether a free worker waits for others
  Nanos target = 0;              // within which 99% of the answers are to come; 0: none
  Nanos longest = kNever;        // that a delay for its sake may be
  int workers = 1;               // that share the work, for its sake
  TargetWatch* watch = nullptr;  // where there is one
};

/// What a pace has come to, and what it rests on.
struct PaceFigures {
  int64_t pays = 0;     // rows of a batch; 0: nothing has run
  int64_t most = 0;     // that it might have
  Nanos company = 0;    // for how long a free worker waits for others, at most
  Nanos alone = 0;      // a run of one row, where that is known
  Nanos of_paying = 0;  // a run of as many as pay
  Nanos of_most = 0;    // and of as many as may be
  Nanos delay = -1;     // for which the oldest waits, for the sake of the target; -1: as the policy says
  Nanos expected = 0;   // what 99% of the answers should take at most, where there is a target
  bool kept = true;     // whether that is within it
  double rate = 0;      // rows that come in a second, where there is one
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
  /// For how long the oldest waits for others, for the sake of a target; -1: as the policy says.
  Nanos delay() const { return plan_.rows > 0 ? plan_.delay : -1; }
  void counts(Nanos now, int64_t rows) noexcept { rate_.came(now, rows); }
  void came(Nanos now, int64_t rows) noexcept {
    if (company_) company_->came(now, rows);
  }
  /// Until when the batch that could go at last waits, and for how many rows in all; 0 where it does not.
  Nanos until() const { return until_; }
  int64_t expected() const { return expected_; }

  /// A batch went. True where it is time to renew() the figures.
  bool went(Nanos now, const PaceOptions& options) noexcept {
    until_ = 0;
    ++count_;
    const bool due = count_ % kRenewed == 0 && (is_slow_ || count_ % (kRenewed * kRenewed) <= 2 * kRenewed);
    return due || (options.target != 0 && now - renewed_ >= kOften);
  }
  /// Runs are another model's from now on: what is known of them is not, but for how many rows come.
  void forget() noexcept {
    const ArrivalRate rate = rate_;
    *this = Pace();
    rate_ = rate;
  }
  /// Finds its figures anew.
  void renew(Nanos now, const PaceOptions& options, int64_t most, const CostCurve& curve) noexcept;
  PaceFigures figures(Nanos now, int64_t most, const CostCurve& curve) const noexcept;

 private:
  static constexpr uint32_t kRenewed = 16, kTries = 64;  // batches
  static constexpr Nanos kOften = 50'000'000;

  int64_t pays_ = std::numeric_limits<int64_t>::max();
  int64_t enough_ = std::numeric_limits<int64_t>::max();  // the same without a target
  int64_t tries_ = 0;                                     // rows; 0: none
  uint32_t count_ = 0;
  bool is_slow_ = false;  // runs take so long that anything can be won; else it looks more rarely
  Nanos until_ = 0;
  int64_t expected_ = 0;
  Nanos renewed_ = 0;
  ArrivalRate rate_;
  TargetPlan plan_;                      // without rows: none
  std::unique_ptr<Companions> company_;  // where runs take so long that it matters
};

}  // namespace inferkit
