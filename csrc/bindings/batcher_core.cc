#include "bindings/batcher_core.h"

#include <time.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "bindings/exit.h"
#include "bindings/native_type.h"
#include "bindings/py_model.h"
#include "bindings/trio.h"
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
/// Longer than ticks take. A loop may lose a callback: a signal handler's exception, or no memory, just before it is
/// called.
constexpr Nanos kTickLostNanos = 50'000'000;

struct CoreObject {
  PyObject ob_base;
  std::shared_ptr<BatcherCore> core;  // the only one that lasts
};

CoreObject* as_core(PyObject* object) { return reinterpret_cast<CoreObject*>(object); }

PyTypeObject* core_type = nullptr;

/// The model lets go of its callable where the collector asks it to, so there is nothing to clear here.
int core_traverse(PyObject* object, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(object));
  Py_VISIT(as_core(object)->core->model().ptr());
  return 0;
}

void core_dealloc(PyObject* object) {
  PyObject_GC_UnTrack(object);
  as_core(object)->core.~shared_ptr();
  free_gc_object(object);
}

PyType_Slot core_slots[] = {{Py_tp_dealloc, reinterpret_cast<void*>(core_dealloc)},
                            {Py_tp_traverse, reinterpret_cast<void*>(core_traverse)},
                            {0, nullptr}};
PyType_Spec core_spec = {"inferkit._core._BatcherCore", sizeof(CoreObject), 0,
                         Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, core_slots};

/// Sets a flag for as long as it lives.
class FlagScope {
 public:
  explicit FlagScope(bool& flag) : flag_(flag) { flag_ = true; }
  ~FlagScope() { flag_ = false; }
  FlagScope(const FlagScope&) = delete;
  FlagScope& operator=(const FlagScope&) = delete;

 private:
  bool& flag_;
};

}  // namespace

BatcherCore* CoreRef::operator->() const { return as_core(object_.ptr())->core.get(); }

void bind_batcher_core() { core_type = make_type(core_spec); }

struct Stage {
  explicit Stage(Batcher& batcher, std::shared_ptr<EventLoop> of) : loop(std::move(of)), tools(batcher.make_tools()) {}

  const std::shared_ptr<EventLoop> loop;
  std::vector<RequestRef> staged;
  bool scheduled = false;  // end_of_tick() will be called, or open_stage() sees that it will not
  Nanos scheduled_at = 0;  // on the batcher's clock
  bool running = false;    // it is running, below us on the stack
  BatchRun tools;
  Batch batch;
  py::object callback;
};

BatcherCore::BatcherCore(py::object model)
    : model_(std::move(model)), runner_(std::make_shared<SwapRunner>(py_model(model_).runner)) {}

void BatcherCore::swap(py::object model) {
  const std::shared_ptr<Runner> next = py_model(model).runner;
  const Intake::Checks& checks = batcher_->checks_for(*next);  // first what may fail
  std::vector<Lesson> lessons;
  for (const Rehearsed& rehearsed : rehearsed_) {
    if (rehearsed.model.lock() == next) lessons.push_back(rehearsed.lesson);
  }
  const std::shared_ptr<Runner> before = runner_->swap(next);
  batcher_->follow(checks, lessons);  // the GIL is held: no other swap comes between
  std::erase_if(rehearsed_, [&](const Rehearsed& r) { return r.model.expired() || r.model.lock() == next; });
  std::swap(model_, model);  // the other goes with the argument: its callable may run Python as it dies
}

void BatcherCore::rehearse(const std::shared_ptr<Runner>& model, std::span<const StridedView> inputs) {
  std::vector<Lesson> lessons;
  {
    const py::gil_scoped_release release;
    lessons = batcher_->rehearse(*model, inputs);
  }
  for (Lesson& lesson : lessons) rehearsed_.push_back({model, std::move(lesson)});
}

CoreRef BatcherCore::make(py::object model, BatcherOptions options, std::shared_ptr<const Clock> clock) {
  // The last reference may be dropped anywhere: by the garbage collector, on an event loop's thread, on one of the
  // batcher's own threads (an exception's traceback can hold it). None of them can wait for a batch that runs, so a
  // thread of its own does where there is one.
  const auto destroy = [](BatcherCore* core) {
    if (finalizing()) return;  // a worker may be stuck before the GIL for good: all of it goes with the process
    core->flush();
    std::vector<std::shared_ptr<Stage>> stages;
    stages.swap(core->stages_);
    stages.clear();
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
  auto* object = new_gc_object<CoreObject>(core_type);
  core->object_ = reinterpret_cast<PyObject*>(object);
  new (&object->core) std::shared_ptr<BatcherCore>(std::move(core));
  PyObject_GC_Track(object);
  return CoreRef(py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(object)));
}

BatcherCore::~BatcherCore() = default;

void BatcherCore::give_way(Nanos now) {
  thread_local Nanos last = 0;
  if (now - last < kTurnNanos) return;
  bool wanted = wanting_gil_.load(std::memory_order_relaxed) > 0;
  for (const auto& stage : stages_) {
    const CompletionList* list = stage->loop->list();
    wanted |= list && (!stage->staged.empty() || list->has_news());
  }
  if (!wanted) return;
  {
    const py::gil_scoped_release release;
    ::nanosleep(&kAway, nullptr);
  }
  last = SteadyClock::instance().now();
}

bool BatcherCore::loop_runs_here() { return EventLoop::runs_here() || trio_runs(); }

void BatcherCore::tell_of_loop(std::string_view what, std::string_view until, int level) const {
  const std::string told = cat(what, " blocks the event loop of this thread until ", until);
  if (on_loop_ == OnLoop::kRefuse) throw std::logic_error(told);
  if (PyErr_WarnEx(PyExc_RuntimeWarning, told.c_str(), level) < 0) throw py::error_already_set();
}

bool BatcherCore::keeps_gil(Nanos predicted) const { return runner_->needs_gil() || predicted <= kReleaseGilNanos; }

std::shared_ptr<Stage> BatcherCore::stage_for(const std::shared_ptr<EventLoop>& loop) {
  const auto found = [&]() -> std::shared_ptr<Stage> {
    for (const auto& stage : stages_) {
      if (stage->loop == loop) return stage;
    }
    return nullptr;
  };
  if (auto stage = found()) return stage;
  auto stage = std::make_shared<Stage>(*batcher_, loop);
  // Weak, as the core owns the stage, and the stage the callback.
  stage->callback = py::cpp_function([core = weak_from_this(), weak = std::weak_ptr(stage)] {
    const auto locked = core.lock();
    const auto of = weak.lock();
    if (!locked || !of) return;
    const CoreRef kept = locked->self();  // the tasks that are resumed below may drop every other reference
    kept->end_of_tick(*of);
  });
  if (auto meanwhile = found()) return meanwhile;
  // Those of loops that are gone are let go of when the list is whole again.
  std::vector<std::shared_ptr<Stage>> all{stage}, gone;
  for (const auto& s : stages_) (s->loop->alive() ? all : gone).push_back(s);
  stages_.swap(all);
  loop->add_core(weak_from_this());
  for (const auto& s : gone) send(s->staged);
  return stage;
}

std::shared_ptr<Stage> BatcherCore::open_stage(const std::shared_ptr<EventLoop>& loop, Nanos now) {
  std::shared_ptr<Stage> stage = stage_for(loop);
  if (stage->scheduled && now - stage->scheduled_at < kTickLostNanos) return stage;
  stage->scheduled = true;
  stage->scheduled_at = now;
  try {
    loop->call_soon(stage->callback);
  } catch (...) {
    // A signal handler's exception, or the loop is closing. What was staged meanwhile goes to the workers.
    stage->scheduled = false;
    flush();
    throw;
  }
  return stage;
}

void BatcherCore::stage(Stage& stage, const RequestRef& request) {
  try {
    if (stage.scheduled) {
      stage.staged.push_back(request);
      return;
    }
  } catch (...) {
    batcher_->withdraw(*request);
    throw;
  }
  batcher_->enqueue({&request, 1});  // the tick has come and gone while Python ran
}

void BatcherCore::send(std::vector<RequestRef>& staged, bool wake) {
  // Out of reach of whoever comes back here while requests are let go of.
  std::vector<RequestRef> sending;
  sending.swap(staged);
  batcher_->enqueue(sending, wake);
  sending.clear();
  if (staged.empty() && staged.capacity() < sending.capacity()) staged.swap(sending);  // no allocation once warm
}

void BatcherCore::flush() {
  for (size_t i = 0; i < bulks_.size(); ++i) bulks_[i]->send();  // which may let another thread in, as below
  for (size_t i = 0; i < stages_.size(); ++i) {
    const std::shared_ptr<Stage> stage = stages_[i];
    if (!stage->staged.empty()) send(stage->staged);
  }
}

void BatcherCore::send_late(Nanos now) {
  for (size_t i = 0; i < stages_.size(); ++i) {
    if (stages_[i]->staged.empty()) continue;
    const std::shared_ptr<Stage> stage = stages_[i];  // sending may take it off the list
    if (!stage->loop->alive() || now - stage->scheduled_at >= kTickLostNanos) send(stage->staged);
  }
}

Bulk::Bulk(BatcherCore& core) : core_(core) { core_.bulks_.push_back(this); }

Bulk::~Bulk() {
  send();
  std::erase(core_.bulks_, this);
}

void Bulk::make_room() {
  for (std::vector<RequestRef>* of : {&requests_, &kept_}) {
    if (of->size() == of->capacity()) of->reserve(std::max<size_t>(64, 2 * of->size()));
  }
}

void Bulk::send() noexcept {
  const std::span<const RequestRef> sending = unsent();
  sent_ = requests_.size();
  rows_ = 0;
  if (!sending.empty()) core_.batcher().enqueue(sending);
}

void Bulk::cancel_all() noexcept {
  sent_ = requests_.size();
  for (const std::vector<RequestRef>* of : {&requests_, &kept_}) {
    for (const RequestRef& request : *of) core_.batcher().cancel(*request);  // gives back its place, too
  }
}

Nanos Bulk::oldest() const noexcept {
  for (const RequestRef& request : unsent()) {
    if (!request->done()) return request->times.enqueued.load(std::memory_order_relaxed);
  }
  return kNever;
}

Nanos BatcherCore::oldest_staged() const {
  Nanos oldest = kNever;
  for (const auto& stage : stages_) {
    const auto first =
        std::find_if(stage->staged.begin(), stage->staged.end(), [](const auto& r) { return !r->done(); });
    if (first != stage->staged.end()) {
      oldest = std::min(oldest, (*first)->times.enqueued.load(std::memory_order_relaxed));
    }
  }
  for (const Bulk* bulk : bulks_) oldest = std::min(oldest, bulk->oldest());
  return oldest;
}

/// A loop that runs a callable which hangs answers nobody, whatever the deadlines of its requests are.
bool BatcherCore::may_hang(std::span<const RequestRef> staged) const {
  return runner_->needs_gil() && std::ranges::any_of(staged, [](const auto& r) { return r->deadline != kNever; });
}

void BatcherCore::end_of_tick(Stage& stage) {
  stage.scheduled = false;
  if (stage.staged.empty() || stage.running) return flush();
  const Nanos limit = batcher_->options().inline_limit;
  if (limit == 0 || !stage.loop->alive() || may_hang(stage.staged)) return flush();
  const RowLayout& layout = *stage.staged[0]->layout;
  const Nanos predicted =
      batcher_->predict(layout, std::min({int64_t(stage.staged.size()), batcher_->max_rows(), layout.most_rows}));
  send(stage.staged, /*wake=*/predicted > limit);
  if (predicted <= limit) run_in_tick(stage, predicted);
  stage.loop->deliver();
}

void BatcherCore::run_in_tick(Stage& stage, Nanos predicted) {
  const IntrusivePtr<CompletionList> list(stage.loop->list());  // a model's callable may be the end of the loop
  const FlagScope running(stage.running);
  try {
    std::optional<GilAway> away;
    if (!keeps_gil(predicted)) away.emplace(*this);
    batcher_->run_inline(stage.tools, stage.batch, *list);
  } catch (...) {
    list->notify();  // what has ended is still delivered, in the next turn of the loop
    throw;
  }
}

}  // namespace inferkit
