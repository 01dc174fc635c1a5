// A batcher as Python holds it: the native one, and for each event loop that submits to it what one tick gathers.
#pragma once
#include <pybind11/pybind11.h>

#include <atomic>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "batching/batcher.h"
#include "batching/swap_runner.h"
#include "bindings/event_loop.h"

namespace inferkit {

class BatcherCore;

/// An owner of a BatcherCore. What it owns is a Python object with the core in it, which its batcher and each of its
/// tickets refer to, so that the garbage collector sees the arrows from there to the model and its callable. Needs the
/// GIL.
class CoreRef {
 public:
  explicit CoreRef(pybind11::object object) : object_(std::move(object)) {}

  BatcherCore* operator->() const;
  BatcherCore& operator*() const { return *operator->(); }
  PyObject* ptr() const { return object_.ptr(); }

 private:
  pybind11::object object_;
};

/// What one loop has submitted to one batcher since the last tick.
struct Stage;

/// What one call submits, and goes to the queue a batch at a time. Guarded by the GIL, as the core is.
class Bulk {
 public:
  explicit Bulk(BatcherCore& core);
  ~Bulk();
  Bulk(const Bulk&) = delete;
  Bulk& operator=(const Bulk&) = delete;

  /// So that neither add() nor keep() can fail, when a request has been admitted.
  void make_room();
  /// Calls no Python.
  void add(const RequestRef& request) noexcept {
    requests_.push_back(request);
    rows_ += request->rows;
  }
  /// One that is on its way without this: for cancel_all() alone.
  void keep(const RequestRef& request) noexcept { kept_.push_back(request); }
  /// Of all that were added, what has not been queued yet.
  void send() noexcept;
  int64_t rows() const noexcept { return rows_; }  // not queued yet
  /// What has not been queued never is.
  void cancel_all() noexcept;
  Nanos oldest() const noexcept;

 private:
  std::span<const RequestRef> unsent() const noexcept { return std::span(requests_).subspan(sent_); }

  BatcherCore& core_;
  std::vector<RequestRef> requests_, kept_;
  size_t sent_ = 0;
  int64_t rows_ = 0;
};

/// Shared by the Python object and its tickets; the last one closes it. Guarded by the GIL but for `batcher`, which is
/// thread-safe. Whatever calls Python, makes a Python object or drops one may come back here, or let another thread in:
/// nothing is half changed then, and no iterator held.
class BatcherCore : public std::enable_shared_from_this<BatcherCore> {
 public:
  /// Of a Python Model, on `clock`, or the steady one. Needs the GIL.
  static CoreRef make(pybind11::object model, BatcherOptions options, std::shared_ptr<const Clock> clock = nullptr);
  ~BatcherCore();

  CoreRef self() const { return CoreRef(pybind11::reinterpret_borrow<pybind11::object>(object_)); }
  Batcher& batcher() { return *batcher_; }
  const std::shared_ptr<SwapRunner>& runner() const { return runner_; }
  /// Runs the other model from the next batch on. Throws std::invalid_argument where it is no substitute.
  void swap(pybind11::object model);
  /// Runs inputs of nobody's on a model that is to be swapped in: from then on it is known what that takes.
  void rehearse(const std::shared_ptr<Runner>& model, std::span<const StridedView> inputs);
  /// Whether an event loop has to see that the request's time passes: it has one, and that of the steady clock.
  bool to_be_watched(const Request& request) const { return batcher_->steady() && request.next_timeout() != kNever; }
  /// Kept for its callable, which the garbage collector finds through it alone.
  const pybind11::object& model() const { return model_; }

  /// Where requests of `loop` are gathered until the end of its tick, which is on its way from `now` on. Calls Python.
  std::shared_ptr<Stage> open_stage(const std::shared_ptr<EventLoop>& loop, Nanos now);
  /// Adds an admitted request. Calls no Python. Where it throws, the request has ended.
  void stage(Stage& stage, const RequestRef& request);
  /// Queues what every loop has staged, and every call gathered: for calls that wait, or end the batcher.
  void flush();
  /// Sends those alone whose tick is overdue, or whose loop is gone: a loop that was left in the middle of a tick would
  /// keep their places in the queue for ever.
  void send_late(Nanos now);
  /// When the oldest of those that wait there was submitted; kNever where none does.
  Nanos oldest_staged() const;
  /// Lets go of the GIL for a moment where an event loop or another caller of this batcher is known to want it and the
  /// calling thread has had its turn. A thread that keeps the GIL through run after run would else hold them up for
  /// Python's switch interval, 5 ms, each time.
  void give_way(Nanos now);
  /// What a call does that blocks the event loop of its thread.
  enum class OnLoop : uint8_t { kAllow, kWarn, kRefuse };
  void set_on_loop(OnLoop on_loop) { on_loop_ = on_loop; }
  /// Whether an event loop runs on this thread that calls are not to block without a word.
  bool on_loop() const { return on_loop_ != OnLoop::kAllow && loop_runs_here(); }
  /// Before `what` blocks the calling thread `until` something, and what to do instead. The warning is of that frame of
  /// Python's, counted from 1. Throws what the warning raises, or std::logic_error.
  void may_block(std::string_view what, std::string_view until = kUntilAnswered, int level = 1) const {
    if (on_loop()) tell_of_loop(what, until, level);
  }
  /// A prediction so short that keeping the GIL is cheaper than handing it over; never for a run that needs it anyway.
  bool keeps_gil(Nanos predicted) const;

 private:
  friend class GilAway;
  friend class Bulk;
  explicit BatcherCore(pybind11::object model);
  std::shared_ptr<Stage> stage_for(const std::shared_ptr<EventLoop>& loop);
  void send(std::vector<RequestRef>& staged, bool wake = true);
  void end_of_tick(Stage& stage);
  bool may_hang(std::span<const RequestRef> staged) const;
  void run_in_tick(Stage& stage, Nanos predicted);
  static bool loop_runs_here();
  void tell_of_loop(std::string_view what, std::string_view until, int level) const;
  static constexpr std::string_view kUntilAnswered = "the answer is there: await batcher.submit(x) instead";

  PyObject* object_ = nullptr;  // with this in it: borrowed, as it lives as long as this
  pybind11::object model_;
  const std::shared_ptr<SwapRunner> runner_;
  std::shared_ptr<const Clock> clock_;  // null: the steady one
  std::unique_ptr<Batcher> batcher_;
  std::vector<std::shared_ptr<Stage>> stages_;
  std::vector<Bulk*> bulks_;
  struct Rehearsed {
    std::weak_ptr<Runner> model;
    Lesson lesson;
  };
  std::vector<Rehearsed> rehearsed_;  // of models that are to be swapped in
  std::atomic<int> wanting_gil_{0};   // relaxed: a hint
  OnLoop on_loop_ = OnLoop::kAllow;
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

/// Makes the type of the Python object.
void bind_batcher_core();

}  // namespace inferkit
