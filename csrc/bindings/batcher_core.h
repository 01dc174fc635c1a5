// A batcher as Python holds it: the native one, and for each event loop that submits to it what one tick gathers.
#pragma once
#include <pybind11/pybind11.h>

#include <atomic>
#include <memory>
#include <vector>

#include "batching/batcher.h"
#include "bindings/event_loop.h"

namespace inferkit {

/// Shared by the Python object and its tickets; the last one closes it. Guarded by the GIL but for `batcher`, which is
/// thread-safe.
class BatcherCore : public std::enable_shared_from_this<BatcherCore> {
 public:
  /// Of a Python Model, on `clock`, or the steady one. Needs the GIL.
  static std::shared_ptr<BatcherCore> make(pybind11::object model, BatcherOptions options,
                                           std::shared_ptr<const Clock> clock = nullptr);
  ~BatcherCore();

  Batcher& batcher() { return *batcher_; }
  const std::shared_ptr<Runner>& runner() const { return runner_; }
  /// Kept for its callable, which the garbage collector finds through it alone.
  const pybind11::object& model() const { return model_; }

  /// Adds an admitted request to what its loop submits in this tick.
  void stage(EventLoop& loop, RequestRef request);
  /// Queues what every loop has staged: for calls that wait, or end the batcher.
  void flush();
  /// Lets go of the GIL for a moment where an event loop or another caller of this batcher is known to want it and the
  /// calling thread has had its turn. A thread that keeps the GIL through run after run would else hold them up for
  /// Python's switch interval, 5 ms, each time.
  void give_way(Nanos now);
  /// A prediction so short that keeping the GIL is cheaper than handing it over; never for a run that needs it anyway.
  bool keeps_gil(Nanos predicted) const;

 private:
  friend class GilAway;
  struct Stage;
  explicit BatcherCore(pybind11::object model);
  Stage& stage_for(EventLoop& loop);
  void end_of_tick(Stage& stage);

  pybind11::object model_;
  std::shared_ptr<Runner> runner_;
  std::shared_ptr<const Clock> clock_;  // null: the steady one
  std::unique_ptr<Batcher> batcher_;
  std::vector<std::shared_ptr<Stage>> stages_;
  std::atomic<int> wanting_gil_{0};  // relaxed: a hint
};

/// Gives the GIL up for its lifetime; lets the batcher's other callers know when it wants it back.
class GilAway {
 public:
  explicit GilAway(BatcherCore& core) : core_(core), thread_(PyEval_SaveThread()) {}
  ~GilAway() {
    core_.wanting_gil_.fetch_add(1, std::memory_order_relaxed);
    PyEval_RestoreThread(thread_);
    core_.wanting_gil_.fetch_sub(1, std::memory_order_relaxed);
  }
  GilAway(const GilAway&) = delete;
  GilAway& operator=(const GilAway&) = delete;

 private:
  BatcherCore& core_;
  PyThreadState* const thread_;
};

}  // namespace inferkit
