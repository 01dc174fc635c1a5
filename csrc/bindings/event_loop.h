// One event loop, asyncio's or a run of trio, as tickets see it: how the ends of requests reach it, and how their tasks
// go on.
#pragma once
#include <pybind11/pybind11.h>

#include <memory>
#include <vector>

#include "batching/completion.h"
#include "batching/request.h"
#include "platform/clock.h"

namespace inferkit {

class BatcherCore;
struct TicketObject;

/// One for each loop and process, made when the loop first submits; refers to the loop weakly. Owns the completion list
/// and its file descriptor, which the loop watches for as long as it is open: the watching callback is what owns the
/// tickets that are awaited, so that the garbage collector sees the arrows from the loop to its tasks. Guarded by the
/// GIL; used by the loop's thread. Whatever calls Python, or lets go of a Python object, may come back here.
class EventLoop : public std::enable_shared_from_this<EventLoop> {
 public:
  /// The state of the loop that runs on this thread; null where none does.
  static std::shared_ptr<EventLoop> running();
  /// Whether one does, without making its state.
  static bool runs_here();

  /// The open loop that learns of the request's end; null where none does.
  static std::shared_ptr<EventLoop> of(const Request& request);
  /// The state of the loop whose thread has made it; null where it has not.
  static std::shared_ptr<EventLoop> of_loop(pybind11::handle loop);

  /// Lets go of loops that have been closed but are still referred to.
  static void forget_closed();

  explicit EventLoop(PyObject* loop);
  ~EventLoop();

  /// Null once the loop is gone.
  CompletionList* list() const { return list_.get(); }
  /// The loop, borrowed; null once it is gone.
  PyObject* loop() const { return loop_; }
  bool alive() const { return loop_ != nullptr; }

  void call_soon(pybind11::handle callback);
  void call_soon(pybind11::handle callback, pybind11::handle context);
  /// Remembers to end the request when its time has passed, without anybody waiting for it. Calls no Python: arm() is
  /// to follow.
  void watch(std::weak_ptr<BatcherCore> core, RequestRef request);
  /// Makes sure that the loop calls back in time for what is watched.
  void arm();
  /// The same, from another thread.
  void arm_soon();
  /// Resumes the tasks whose requests have ended. Top of the stack only: no task is running.
  void deliver();

  // Tickets that tasks of this loop await: their requests are the only thing that keeps them alive.
  void add_awaited(TicketObject* ticket);
  void remove_awaited(TicketObject* ticket);
  int visit_awaited(visitproc visit, void* arg) const;

  /// What gathers requests for this loop sends what it has left when the loop goes: no tick comes any more.
  void add_core(std::weak_ptr<BatcherCore> core);
  /// Lets go of everything that belongs to the loop; called when it has closed or is gone.
  void abandon();

 private:
  struct Timer {
    Nanos when;
    RequestRef request;
    std::weak_ptr<BatcherCore> core;
  };
  void on_timer(Nanos armed);
  Timer pop_timer();
  void drop_ended_timers();

  std::vector<std::weak_ptr<BatcherCore>> cores_;
  PyObject* loop_;
  IntrusivePtr<CompletionList> list_;
  const uint32_t fork_generation_;
  // Tasks may be resumed straight from a callback of the loop, saving a call_soon each. Not in asyncio's debug mode,
  // where every step goes through the loop, so that it can time and name it.
  bool direct_ = true;
  std::vector<RequestRef> ended_;  // empty: kept for its memory
  TicketObject* awaited_ = nullptr;
  std::vector<Timer> timers_;  // a heap, the earliest first
  size_t sweep_at_ = 64;       // timers that make a look for ended requests worth it
  std::vector<Nanos> armed_;   // the times for which the loop is still to call on_timer(), in order
  bool unarmed_ = false;       // asking it failed
  pybind11::object on_timer_;
};

/// Makes the type of the callbacks.
void bind_event_loop();

}  // namespace inferkit
