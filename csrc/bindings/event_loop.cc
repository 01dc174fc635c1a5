#include "bindings/event_loop.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "bindings/attributes.h"
#include "bindings/batcher_core.h"
#include "bindings/exit.h"
#include "bindings/guarded.h"
#include "bindings/native_type.h"
#include "bindings/ticket.h"
#include "bindings/trio.h"
#include "bindings/waiter.h"
#include "platform/fork.h"

namespace py = pybind11;

namespace inferkit {
namespace {

struct Entry {
  std::shared_ptr<EventLoop> state;
  py::object weak;  // its callback takes the entry out
};

/// By address; an address is only used again after the weak reference's callback has run. Nothing that may call Python
/// happens while it is looked at or changed. Never destroyed, as the interpreter may be gone by then.
std::unordered_map<PyObject*, Entry>& registry() {
  static auto* map = new std::unordered_map<PyObject*, Entry>;
  return *map;
}

/// What a weak reference refers to; null where it is gone. Runs no Python code.
py::object referent(PyObject* weak) {
#if PY_VERSION_HEX >= 0x030D0000
  PyObject* found = nullptr;
  PyWeakref_GetRef(weak, &found);
  return py::reinterpret_steal<py::object>(found);
#else
  PyObject* found = PyWeakref_GetObject(weak);
  return py::reinterpret_borrow<py::object>(found == Py_None ? nullptr : found);
#endif
}

std::shared_ptr<EventLoop> registered(PyObject* loop) {
  const auto it = registry().find(loop);
  return it == registry().end() ? nullptr : it->second.state;
}

// The loop that asked last; mostly there is one. Its entry is in the registry.
PyObject* last_loop = nullptr;
EventLoop* last_state = nullptr;

/// Takes out the loop's entry; where `only` is given, if it is that state's.
void forget(PyObject* loop, const EventLoop* only = nullptr) {
  const auto it = registry().find(loop);
  if (it == registry().end() || (only && it->second.state.get() != only)) return;
  if (last_loop == loop) last_loop = nullptr;
  const Entry entry = std::move(it->second);
  registry().erase(it);
  entry.state->abandon();
}

// Interned at import: made where they are used, they would be made under the guard of a static.
PyObject *asyncio_events = nullptr, *call_soon_name = nullptr;

/// asyncio._get_running_loop, once somebody has imported asyncio: nobody else can be running a loop.
PyObject* get_running_loop() {
  static PyObject* function = nullptr;
  if (!function) {
    const auto module = py::reinterpret_steal<py::object>(PyImport_GetModule(asyncio_events));
    if (!module) {
      if (PyErr_Occurred()) throw py::error_already_set();
      return nullptr;
    }
    py::object found = find_attribute(module, "_get_running_loop");
    if (!found) return nullptr;  // it is still being imported
    function = found.release().ptr();
  }
  PyObject* loop = PyObject_CallNoArgs(function);
  if (!loop) throw py::error_already_set();
  Py_DECREF(loop);  // the thread state keeps it
  return loop == Py_None ? nullptr : loop;
}

constexpr Nanos kRounding = 1'000'000;  // loops keep time by the millisecond

bool later(const auto& a, const auto& b) { return a.when > b.when; }

/// The loop in whose callback this thread resumes tasks: what they submit is its, without asking asyncio, which on most
/// versions makes a system call to answer. A thread runs one loop at a time.
thread_local EventLoop* delivering = nullptr;

class Delivering {
 public:
  explicit Delivering(EventLoop* loop) : before_(std::exchange(delivering, loop)) {}
  ~Delivering() { delivering = before_; }
  Delivering(const Delivering&) = delete;
  Delivering& operator=(const Delivering&) = delete;

 private:
  EventLoop* const before_;
};

/// What a loop calls when the descriptor of its completion list is readable. Owns, for the garbage collector, what the
/// state refers to; with it goes the state.
struct ReaderObject {
  PyObject ob_base;
  std::shared_ptr<EventLoop> state;
};

PyTypeObject* reader_type = nullptr;

ReaderObject* as_reader(PyObject* object) { return reinterpret_cast<ReaderObject*>(object); }

PyObject* reader_call(PyObject* object, PyObject*, PyObject*) {
  return guarded([&] {
    const std::shared_ptr<EventLoop> state = as_reader(object)->state;
    if (CompletionList* list = state->list()) list->acknowledge();
    state->deliver();
    return Py_NewRef(Py_None);
  });
}

int reader_traverse(PyObject* object, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(object));
  return as_reader(object)->state->visit_awaited(visit, arg);
}

/// Takes the state out of the registry, if it is still there, and lets go of what it holds.
int reader_clear(PyObject* object) {
  const std::shared_ptr<EventLoop> state = as_reader(object)->state;
  if (state->alive()) forget(state->loop(), state.get());
  state->abandon();
  return 0;
}

void reader_dealloc(PyObject* object) {
  PyObject_GC_UnTrack(object);
  reader_clear(object);
  as_reader(object)->state.~shared_ptr();
  free_gc_object(object);
}

PyType_Slot reader_slots[] = {{Py_tp_dealloc, reinterpret_cast<void*>(reader_dealloc)},
                              {Py_tp_traverse, reinterpret_cast<void*>(reader_traverse)},
                              {Py_tp_clear, reinterpret_cast<void*>(reader_clear)},
                              {Py_tp_call, reinterpret_cast<void*>(reader_call)},
                              {0, nullptr}};
PyType_Spec reader_spec = {"inferkit._core._LoopReader", sizeof(ReaderObject), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, reader_slots};

py::object make_reader(std::shared_ptr<EventLoop> state) {
  auto* reader = new_gc_object<ReaderObject>(reader_type);
  new (&reader->state) std::shared_ptr<EventLoop>(std::move(state));
  PyObject_GC_Track(reader);
  return py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(reader));
}

}  // namespace

void bind_event_loop() {
  reader_type = make_type(reader_spec);
  asyncio_events = intern("asyncio.events");
  call_soon_name = intern("call_soon");
}

void EventLoop::forget_closed() {
  std::vector<py::object> loops;
  for (const auto& [loop, entry] : registry()) {
    if (py::object alive = referent(entry.weak.ptr())) loops.push_back(std::move(alive));
  }
  for (const py::object& loop : loops) {
    const std::shared_ptr<EventLoop> state = registered(loop.ptr());
    if (state && py::cast<bool>(loop.attr("is_closed")())) forget(loop.ptr(), state.get());
  }
}

std::shared_ptr<EventLoop> EventLoop::of(const Request& request) {
  for (const auto& [loop, entry] : registry()) {
    const CompletionList* list = entry.state->list();
    if (list && request.attached_to(*list)) return entry.state;
  }
  return nullptr;
}

std::shared_ptr<EventLoop> EventLoop::of_loop(py::handle loop) { return registered(loop.ptr()); }

bool EventLoop::runs_here() { return get_running_loop() != nullptr; }

std::shared_ptr<EventLoop> EventLoop::running() {
  if (delivering && delivering->alive() && delivering->fork_generation_ == inferkit::fork_generation()) {
    return delivering->shared_from_this();
  }
  const py::object of_trio = trio_loop();
  PyObject* running = of_trio ? of_trio.ptr() : get_running_loop();
  if (!running) return nullptr;
  const auto is_ours = [](const EventLoop& state) { return state.fork_generation_ == inferkit::fork_generation(); };
  if (running == last_loop && is_ours(*last_state)) return last_state->shared_from_this();
  const auto loop = py::reinterpret_borrow<py::object>(running);
  std::shared_ptr<EventLoop> state = registered(loop.ptr());
  if (state && !is_ours(*state)) {
    forget(loop.ptr(), state.get());  // a child's copy of its parent's loop: the descriptor would wake both
    state = nullptr;
  }
  if (!state) {
    forget_closed();
    auto made = std::make_shared<EventLoop>(loop.ptr());
    const py::object reader = make_reader(made);
    py::object weak = py::weakref(loop, py::cpp_function([at = loop.ptr()](const py::handle&) { forget(at); }));
    loop.attr("add_reader")(made->list()->fd(), reader);
    state = registered(loop.ptr());  // a finalizer or a signal handler that ran meanwhile may have come first
    if (!state) {
      registry().emplace(loop.ptr(), Entry{made, std::move(weak)});
      state = std::move(made);
    }
  }
  last_loop = loop.ptr();
  last_state = state.get();
  return state;
}

EventLoop::EventLoop(PyObject* loop)
    : loop_(loop), list_(new CompletionList), fork_generation_(inferkit::fork_generation()) {
  // A task that is resumed in the middle of the reader's callback has the callback's handle around it. Where loops may
  // be run within themselves (nest_asyncio marks them so) that handle could not run again while the task waits.
  direct_ = !py::cast<bool>(py::handle(loop).attr("get_debug")()) && !find_attribute(loop, "_nest_patched");
}

EventLoop::~EventLoop() = default;

namespace {
/// The loop's own reference, for a call that may be the end of it.
py::object kept(PyObject* loop) {
  if (!loop) throw std::logic_error("the event loop is closed");
  return py::reinterpret_borrow<py::object>(loop);
}
}  // namespace

void EventLoop::call_soon(py::handle callback) {
  const py::object loop = kept(loop_);
  PyObject* handle = PyObject_CallMethodOneArg(loop.ptr(), call_soon_name, callback.ptr());
  if (!handle) throw py::error_already_set();
  Py_DECREF(handle);
}

void EventLoop::call_soon(py::handle callback, py::handle context) {
  kept(loop_).attr("call_soon")(callback, py::arg("context") = context);
}

void EventLoop::deliver() {
  if (left_behind()) return;  // nor does anything else of a daemon thread go on
  if (!list_) return;
  const auto self = shared_from_this();
  const Delivering scope(this);
  std::vector<RequestRef> ended;
  ended.swap(ended_);  // tasks that are resumed may come back here
  list_->take(ended);
  FirstError first;
  for (const RequestRef& request : ended) {
    if (auto* ticket = static_cast<TicketObject*>(request->owner)) {
      // After a KeyboardInterrupt or SystemExit the others still go on, by the loop, before it leaves.
      resume_waiters(ticket, direct_ && !first, first);
    } else {
      request->outputs = nullptr;  // nobody will ask
    }
  }
  ended.clear();
  if (ended_.capacity() < ended.capacity()) ended_.swap(ended);
  try {
    if (unarmed_) arm();
  } catch (py::error_already_set& error) {
    error.restore();
    first.take();
  }
  first.raise();
}

// Deadlines

void EventLoop::watch(std::weak_ptr<BatcherCore> core, RequestRef request) {
  const Nanos when = request->next_timeout();
  timers_.push_back({when, std::move(request), std::move(core)});
  std::push_heap(timers_.begin(), timers_.end(), later<Timer, Timer>);
}

void EventLoop::drop_ended_timers() {
  std::vector<Timer> ended;       // let go of when the heap is one again
  ended.reserve(timers_.size());  // may throw, so before anything moves
  const auto first = std::partition(timers_.begin(), timers_.end(), [](const Timer& t) { return !t.request->done(); });
  std::move(first, timers_.end(), std::back_inserter(ended));
  timers_.erase(first, timers_.end());
  std::make_heap(timers_.begin(), timers_.end(), later<Timer, Timer>);
  sweep_at_ = std::max<size_t>(64, 2 * timers_.size());
}

/// A new object; where there is no memory for it, MemoryError and not what pybind11 makes of that.
static py::object created(PyObject* object) {
  if (!object) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(object);
}

void EventLoop::arm() {
  if (timers_.size() >= sweep_at_) drop_ended_timers();
  while (!timers_.empty() && timers_.front().request->done()) pop_timer();
  if (timers_.empty() || !loop_) return;
  const Nanos now = SteadyClock::instance().now();
  // At least a millisecond: loops round, and one that fires early must not fire a thousand times.
  const Nanos when = std::max(timers_.front().when, now + kRounding);
  // Where the time has passed without a call, the loop is late, or another was run in its place.
  armed_.erase(armed_.begin(), std::lower_bound(armed_.begin(), armed_.end(), now));
  if (!unarmed_ && !armed_.empty() && armed_.front() <= when) return;
  if (!on_timer_) {
    py::object made = py::cpp_function([state = weak_from_this()](Nanos armed) {
      if (const auto kept = state.lock()) kept->on_timer(armed);
    });
    if (!on_timer_) on_timer_ = std::move(made);
  }
  const py::object loop = kept(loop_), on_timer = on_timer_;
  unarmed_ = false;
  try {
    armed_.reserve(armed_.size() + 1);  // may throw, so before the call
    const auto delay = created(PyFloat_FromDouble(double(when - now) * 1e-9)),
               armed = created(PyLong_FromSsize_t(when));
    loop.attr("call_later")(delay, on_timer, armed);
  } catch (...) {
    unarmed_ = true;
    if (list_) list_->notify();  // the loop calls deliver(), which tries again
    throw;
  }
  if (armed_.size() < armed_.capacity()) {  // else a signal handler's submission took the room: one call more, at worst
    armed_.insert(std::upper_bound(armed_.begin(), armed_.end(), when), when);
  }
}

void EventLoop::arm_soon() {
  unarmed_ = true;
  if (list_) list_->notify();  // deliver() does it
}

EventLoop::Timer EventLoop::pop_timer() {
  std::pop_heap(timers_.begin(), timers_.end(), later<Timer, Timer>);
  Timer timer = std::move(timers_.back());
  timers_.pop_back();
  return timer;
}

void EventLoop::on_timer(Nanos armed) {
  const Nanos now = SteadyClock::instance().now();
  // This call has come, however early: uvloop counts in whole milliseconds from a time that it keeps, which on a busy
  // machine is some ago.
  const auto it = std::find(armed_.begin(), armed_.end(), armed);
  if (it != armed_.end()) armed_.erase(it);
  while (!timers_.empty() && (timers_.front().when <= now || timers_.front().request->done())) {
    const Timer timer = pop_timer();
    if (timer.request->done()) continue;
    if (const auto core = timer.core.lock()) core->batcher().expire(*timer.request, now);
    if (!timer.request->done() && timer.request->next_timeout() != kNever) watch(timer.core, timer.request);
  }
  arm();
}

// The end of the loop

void EventLoop::add_awaited(TicketObject* ticket) {
  Py_INCREF(reinterpret_cast<PyObject*>(ticket));
  ticket->awaited_next = awaited_;
  ticket->awaited_previous = nullptr;
  if (awaited_) awaited_->awaited_previous = ticket;
  awaited_ = ticket;
}

void EventLoop::remove_awaited(TicketObject* ticket) {
  (ticket->awaited_previous ? ticket->awaited_previous->awaited_next : awaited_) = ticket->awaited_next;
  if (ticket->awaited_next) ticket->awaited_next->awaited_previous = ticket->awaited_previous;
  Py_DECREF(reinterpret_cast<PyObject*>(ticket));
}

int EventLoop::visit_awaited(visitproc visit, void* arg) const {
  for (TicketObject* ticket = awaited_; ticket; ticket = ticket->awaited_next) {
    Py_VISIT(reinterpret_cast<PyObject*>(ticket));
  }
  return 0;
}

void EventLoop::add_core(std::weak_ptr<BatcherCore> core) {
  std::erase_if(cores_, [](const auto& c) { return c.expired(); });
  cores_.push_back(std::move(core));
}

void EventLoop::abandon() {
  const auto self = shared_from_this();
  loop_ = nullptr;
  // The descriptor goes with the list, when the requests that report to it have ended.
  const IntrusivePtr<CompletionList> list = std::move(list_);
  std::vector<Timer> timers;
  timers.swap(timers_);
  std::vector<std::weak_ptr<BatcherCore>> cores;
  cores.swap(cores_);
  for (const auto& weak : cores) {
    if (const auto core = weak.lock()) core->send_late(core->batcher().clock().now());
  }
  while (awaited_) drop_waiters(awaited_);
}

}  // namespace inferkit
