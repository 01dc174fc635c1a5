// The scheduler of a batcher without its threads, for simulations: these so run what is shipped, and not a copy.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "batching/scheduler.h"

namespace inferkit {

struct SimulatedOptions {
  int64_t max_rows = 64;
  Nanos max_delay = 0;
  int workers = 1;
  PaceOptions pace{};
};

/// The queue, the policy and all that they learn. Whoever calls says what time it is, which never goes back, and when
/// runs are over. Requests are of one layout. Not thread-safe.
class SimulatedWorkers {
 public:
  struct Started {
    uint64_t number = 0;
    std::vector<uint64_t> requests;
    int64_t rows = 0;
    DispatchReason reason = DispatchReason::kReady;
  };

  explicit SimulatedWorkers(const SimulatedOptions& options);
  ~SimulatedWorkers();
  SimulatedWorkers(const SimulatedWorkers&) = delete;
  SimulatedWorkers& operator=(const SimulatedWorkers&) = delete;

  /// Requests come, of so many rows each, as in one turn of an event loop. False where they cannot be answered by their
  /// deadline, as far as is known, and so would be refused.
  bool come(Nanos now, std::span<const uint64_t> requests, int64_t rows = 1, Nanos deadline = kNever);
  /// A batch that a free worker takes now; nothing where all are busy, or where there is nothing to run, yet.
  std::optional<Started> take(Nanos now);
  /// When take() is to be called again, if nothing happens before; after it gave nothing.
  Nanos until() const { return until_; }
  /// Those that were dropped since this was last asked, as they could not be answered in time any more.
  std::vector<uint64_t> dropped();
  /// The run of a batch is over: from what it took the policy learns. Throws std::invalid_argument for an unknown one.
  void over(Nanos now, uint64_t number);

  /// What the policy has come to.
  PaceFigures figures() const { return scheduler_.figures().pace; }

 private:
  class Model;
  struct Running {
    Batch batch;
    Nanos since;
  };

  PaceOptions pace(const SimulatedOptions& options);
  void set(Nanos now);

  ManualClock clock_;
  std::unique_ptr<Model> model_;
  TargetWatch watch_;
  Predictor predictor_;
  OpenCount open_;
  LayoutRef layout_;
  Scheduler scheduler_;
  std::map<uint64_t, Running> running_;
  uint64_t started_ = 0;
  Nanos until_ = kNever;
  std::vector<uint64_t> dropped_;
};

}  // namespace inferkit
