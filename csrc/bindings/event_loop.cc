#include "bindings/event_loop.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "bindings/batcher_core.h"
#include "bindings/exit.h"
#include "bindings/ticket.h"
#include "bindings/waiter.h"
#include "platform/fork.h"

namespace py = pybind11;

namespace inferkit {
namespace {

struct Entry {
  std::shared_ptr<EventLoop> state;
  py::object weak;  // its callback takes the entry out
};

/// By address; an address is only used again after the weak reference's callback has run. Never destroyed, as the
/// interpreter may be gone by then.
std::unordered_map<PyObject*, Entry>& registry() {
  static auto* map = new std::unordered_map<PyObject*, Entry>;
  return *map;
}

// The loop that asked last; mostly there is one.
PyObject* last_loop = nullptr;
EventLoop* last_state = nullptr;

void forget(PyObject* loop) {
  if (last_loop == loop) last_loop = nullptr;
  const auto it = registry().find(loop);
  if (it == registry().end()) return;
  const std::shared_ptr<EventLoop> state = it->second.state;
  const py::object weak = std::move(it->second.weak);
  registry().erase(it);
  state->abandon();
}

/// asyncio._get_running_loop, once somebody has imported asyncio: nobody else can be running a loop.
PyObject* get_running_loop() {
  static PyObject* function = nullptr;
  if (!function) {
    static PyObject* name = PyUnicode_InternFromString("asyncio.events");
    const py::object module = py::reinterpret_steal<py::object>(PyImport_GetModule(name));
    if (!module) {
      PyErr_Clear();
      return nullptr;
    }
    function = PyObject_GetAttrString(module.ptr(), "_get_running_loop");
    if (!function) {
      PyErr_Clear();  // it is still being imported
      return nullptr;
    }
  }
  PyObject* loop = PyObject_CallNoArgs(function);
  if (!loop) throw py::error_already_set();
  Py_DECREF(loop);  // the thread state keeps it
  return loop == Py_None ? nullptr : loop;
}

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

}  // namespace

void EventLoop::forget_closed() {
  std::vector<PyObject*> closed;
  for (const auto& [loop, entry] : registry()) {
    if (py::cast<bool>(py::handle(loop).attr("is_closed")())) closed.push_back(loop);
  }
  for (PyObject* loop : closed) forget(loop);
}

EventLoop* EventLoop::running() {
  if (delivering && delivering->alive() && delivering->fork_generation_ == fork_generation()) return delivering;
  PyObject* loop = get_running_loop();
  if (!loop) return nullptr;
  if (loop == last_loop && last_state->fork_generation_ == fork_generation()) return last_state;
  auto it = registry().find(loop);
  if (it != registry().end() && it->second.state->fork_generation_ != fork_generation()) {
    forget(loop);  // a child's copy of its parent's loop: the descriptor would wake both
    it = registry().end();
  }
  if (it == registry().end()) {
    forget_closed();
    auto state = std::make_shared<EventLoop>(loop);
    py::object weak = py::weakref(loop, py::cpp_function([loop](const py::handle&) { forget(loop); }));
    py::handle(loop).attr("add_reader")(state->list().fd(), py::cpp_function([state = std::weak_ptr(state)] {
                                          if (const auto kept = state.lock()) {
                                            kept->list().acknowledge();
                                            kept->deliver();
                                          }
                                        }));
    it = registry().emplace(loop, Entry{std::move(state), std::move(weak)}).first;
  }
  last_loop = loop;
  last_state = it->second.state.get();
  return last_state;
}

EventLoop::EventLoop(PyObject* loop)
    : loop_(loop), list_(new CompletionList), fork_generation_(inferkit::fork_generation()) {
  direct_ = !py::cast<bool>(py::handle(loop).attr("get_debug")());
}

EventLoop::~EventLoop() = default;

void EventLoop::call_soon(py::handle callback) {
  static PyObject* name = PyUnicode_InternFromString("call_soon");
  PyObject* handle = PyObject_CallMethodOneArg(loop_, name, callback.ptr());
  if (!handle) throw py::error_already_set();
  Py_DECREF(handle);
}

void EventLoop::call_soon(py::handle callback, py::handle argument, py::handle context) {
  py::handle(loop_).attr("call_soon")(callback, argument, py::arg("context") = context);
}

void EventLoop::deliver() {
  if (left_behind()) return;  // nor does anything else of a daemon thread go on
  const Delivering scope(this);
  std::vector<RequestRef> ended;
  ended.swap(ended_);  // tasks that are resumed may come back here
  list_->take(ended);
  std::exception_ptr first;
  for (const RequestRef& request : ended) {
    auto* ticket = static_cast<TicketObject*>(request->owner);
    if (!ticket) {
      request->outputs = nullptr;  // nobody will ask
      continue;
    }
    try {
      resume_waiters(ticket, direct_ && !first);
    } catch (py::error_already_set&) {
      // KeyboardInterrupt or SystemExit: the others still go on, by the loop, before it leaves.
      if (!first) first = std::current_exception();
    }
  }
  ended.clear();
  if (ended_.capacity() < ended.capacity()) ended_.swap(ended);
  if (first) std::rethrow_exception(first);
}

// Deadlines

void EventLoop::watch(std::weak_ptr<BatcherCore> core, RequestRef request) {
  if (timers_.size() >= sweep_at_) drop_ended_timers();
  const Nanos when = request->next_timeout();
  timers_.push_back({when, std::move(request), std::move(core)});
  std::push_heap(timers_.begin(), timers_.end(), later<Timer, Timer>);
  if (when < armed_) arm(SteadyClock::instance().now());
}

void EventLoop::drop_ended_timers() {
  std::erase_if(timers_, [](const Timer& timer) { return timer.request->done(); });
  std::make_heap(timers_.begin(), timers_.end(), later<Timer, Timer>);
  sweep_at_ = std::max<size_t>(64, 2 * timers_.size());
}

void EventLoop::arm(Nanos now) {
  if (!on_timer_) {
    on_timer_ = py::cpp_function([state = weak_from_this()] {
      if (const auto kept = state.lock()) kept->on_timer();
    });
  }
  armed_ = timers_.front().when;
  // At least a millisecond: loops round, and one that fires early must not fire a thousand times.
  const double delay = std::max(1e-3, double(armed_ - now) * 1e-9);
  py::handle(loop_).attr("call_later")(delay, on_timer_);
}

void EventLoop::on_timer() {
  const Nanos now = SteadyClock::instance().now();
  armed_ = kNever;
  while (!timers_.empty() && (timers_.front().when <= now || timers_.front().request->done())) {
    std::pop_heap(timers_.begin(), timers_.end(), later<Timer, Timer>);
    const Timer timer = std::move(timers_.back());
    timers_.pop_back();
    if (timer.request->done()) continue;
    if (const auto core = timer.core.lock()) core->batcher().expire(*timer.request, now);
    if (!timer.request->done() && timer.request->next_timeout() != kNever) watch(timer.core, timer.request);
  }
  if (!timers_.empty() && timers_.front().when < armed_) arm(now);
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

void EventLoop::abandon() {
  loop_ = nullptr;
  list_ = nullptr;  // and with it the descriptor, when the requests that report to it have ended
  timers_.clear();
  while (awaited_) drop_waiters(awaited_);
}

}  // namespace inferkit
