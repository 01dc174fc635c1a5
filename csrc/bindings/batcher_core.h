// A batcher as Python holds it: the native one, and for each event loop that submits to it what one tick gathers.
#pragma once
#include <pybind11/pybind11.h>

#include <memory>
#include <vector>

#include "batching/batcher.h"
#include "bindings/event_loop.h"

namespace inferkit {

/// Shared by the Python object and its tickets; the last one closes it. Guarded by the GIL but for `batcher`, which is
/// thread-safe.
class BatcherCore : public std::enable_shared_from_this<BatcherCore> {
 public:
  static std::shared_ptr<BatcherCore> make(std::shared_ptr<Runner> runner, BatcherOptions options);
  ~BatcherCore();

  Batcher& batcher() { return *batcher_; }
  const std::shared_ptr<Runner>& runner() const { return runner_; }

  /// Adds an admitted request to what its loop submits in this tick.
  void stage(EventLoop& loop, RequestRef request);
  /// Queues what every loop has staged: for calls that wait, or end the batcher.
  void flush();
  /// A prediction so short that keeping the GIL is cheaper than handing it over; never for a run that needs it anyway.
  bool keeps_gil(Nanos predicted) const;

 private:
  struct Stage;
  explicit BatcherCore(std::shared_ptr<Runner> runner) : runner_(std::move(runner)) {}
  Stage& stage_for(EventLoop& loop);
  void end_of_tick(Stage& stage);

  std::shared_ptr<Runner> runner_;
  std::unique_ptr<Batcher> batcher_;
  std::vector<std::shared_ptr<Stage>> stages_;
};

}  // namespace inferkit
