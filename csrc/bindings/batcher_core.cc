#include "bindings/batcher_core.h"

#include <time.h>

#include <algorithm>
#include <optional>

#include "bindings/exit.h"
#include "bindings/py_model.h"
#include "platform/threads.h"

namespace py = pybind11;

namespace inferkit {
namespace {
/// Runs that are predicted to take longer give the GIL up. More than for direct calls, since batches run one after the
/// other anyway, and since a caller that gives the GIL up beside a thread that computes waits 5 ms to get it back: a
/// small model that is met with cold caches, some 60 us, must not pay that.
constexpr Nanos kReleaseGilNanos = 100'000;
// How long a thread may keep the GIL from those who wait for it, and how long it stays away: one of them takes about
// 10 us to wake up, and the timer adds its slack of 50 us to what is asked for.
constexpr Nanos kTurnNanos = 200'000;
constexpr timespec kAway{0, 10'000};
}  // namespace

/// What one loop has submitted to one batcher since the last tick.
struct BatcherCore::Stage {
  explicit Stage(Batcher& batcher, std::shared_ptr<EventLoop> of) : loop(std::move(of)), tools(batcher.make_tools()) {}

  const std::shared_ptr<EventLoop> loop;
  std::vector<RequestRef> staged, flushing;
  bool scheduled = false;  // end_of_tick() will be called
  bool running = false;    // it is running, below us on the stack
  BatchRun tools;
  Batch batch;
  py::object callback;
};

BatcherCore::BatcherCore(py::object model) : model_(std::move(model)), runner_(py_model(model_).runner) {}

std::shared_ptr<BatcherCore> BatcherCore::make(py::object model, BatcherOptions options,
                                               std::shared_ptr<const Clock> clock) {
  // The last reference may be dropped anywhere: by the garbage collector, on an event loop's thread, on one of the
  // batcher's own threads (an exception's traceback can hold it). None of them can wait for a batch that runs, so a
  // thread of its own does where there is one.
  const auto destroy = [](BatcherCore* core) {
    if (finalizing()) return;  // a worker may be stuck before the GIL for good: all of it goes with the process
    core->flush();
    core->stages_.clear();
    const py::object last = std::move(core->model_);  // let go of below, where we have the GIL again
    if (core->batcher_) core->batcher_->refuse_all();
    if (core->batcher_ && (core->batcher_->inside() || core->batcher_->busy())) {
      try {
        start_thread("ik-closing", [core] { delete core; }).detach();
        return;
      } catch (...) {
        if (core->batcher_->inside()) return;  // no thread to be had, and it cannot wait for itself: it stays
      }
    }
    const py::gil_scoped_release release;
    delete core;
  };
  std::shared_ptr<BatcherCore> core(new BatcherCore(std::move(model)), destroy);
  core->clock_ = std::move(clock);
  core->batcher_ = std::make_unique<Batcher>(core->runner_, std::move(options), BufferPool::process_default(),
                                             core->clock_ ? *core->clock_ : SteadyClock::instance());
  return core;
}

BatcherCore::~BatcherCore() = default;

void BatcherCore::give_way(Nanos now) {
  thread_local Nanos last = 0;
  if (now - last < kTurnNanos) return;
  bool wanted = wanting_gil_.load(std::memory_order_relaxed) > 0;
  for (const auto& stage : stages_) {
    wanted |= stage->loop->alive() && (!stage->staged.empty() || stage->loop->list().has_news());
  }
  if (!wanted) return;
  {
    const py::gil_scoped_release release;
    ::nanosleep(&kAway, nullptr);
  }
  last = SteadyClock::instance().now();
}

bool BatcherCore::keeps_gil(Nanos predicted) const { return runner_->needs_gil() || predicted <= kReleaseGilNanos; }

BatcherCore::Stage& BatcherCore::stage_for(EventLoop& loop) {
  for (auto& stage : stages_) {
    if (stage->loop.get() == &loop) return *stage;
  }
  std::erase_if(stages_, [](const auto& stage) { return !stage->loop->alive() && stage->staged.empty(); });
  stages_.push_back(std::make_shared<Stage>(*batcher_, loop.shared_from_this()));
  Stage* stage = stages_.back().get();
  // Weak, as the stage, which the core owns, owns the callback.
  stage->callback = py::cpp_function([weak = weak_from_this(), stage] {
    if (const auto core = weak.lock()) core->end_of_tick(*stage);
  });
  return *stage;
}

void BatcherCore::stage(EventLoop& loop, RequestRef request) {
  Stage& stage = stage_for(loop);
  stage.staged.push_back(std::move(request));
  if (stage.scheduled) return;
  try {
    loop.call_soon(stage.callback);
  } catch (...) {
    batcher_->enqueue(stage.staged);  // the loop is closing: the workers will do
    stage.staged.clear();
    throw;
  }
  stage.scheduled = true;
}

void BatcherCore::flush() {
  for (size_t i = 0; i < stages_.size(); ++i) {
    if (stages_[i]->staged.empty()) continue;
    batcher_->enqueue(stages_[i]->staged);
    stages_[i]->staged.clear();
  }
}

void BatcherCore::end_of_tick(Stage& stage) {
  stage.scheduled = false;
  if (stage.staged.empty() || stage.running) return flush();
  const Nanos limit = batcher_->options().inline_limit;
  if (limit == 0 || !stage.loop->alive()) return flush();
  // Keeps the stage and the core alive: the tasks that are resumed below may drop every other reference.
  const auto self = shared_from_this();
  const std::shared_ptr<Stage> kept =
      *std::find_if(stages_.begin(), stages_.end(), [&](const auto& s) { return s.get() == &stage; });

  stage.flushing.swap(stage.staged);
  const Nanos predicted = batcher_->predict(*stage.flushing[0]->layout,
                                            std::min<int64_t>(int64_t(stage.flushing.size()), batcher_->max_rows()));
  batcher_->enqueue(stage.flushing, /*wake=*/predicted > limit);
  stage.flushing.clear();
  if (predicted <= limit) {
    stage.running = true;
    std::optional<GilAway> away;
    if (!keeps_gil(predicted)) away.emplace(*this);
    batcher_->run_inline(stage.tools, stage.batch, stage.loop->list());
    away.reset();
    stage.running = false;
  }
  stage.loop->deliver();
}

}  // namespace inferkit
