// Python code of the application's on a thread of ours.
#pragma once
#include <pybind11/pybind11.h>

#include "platform/fork.h"
#include "platform/threads.h"

namespace inferkit {

/// While a callable runs, on whatever thread; made with the GIL. On a worker, signals are not blocked meanwhile, for
/// the sake of the processes that the callable starts; and where it forks and its child comes back from it, to a
/// batcher that has no threads there, the child ends as it would at the end of a thread of Python's: with what
/// SystemExit says.
class CallOut {
 public:
  CallOut() = default;
  ~CallOut() {
    if (is_lost()) end(nullptr);
  }
  CallOut(const CallOut&) = delete;
  CallOut& operator=(const CallOut&) = delete;

  /// Does not return in such a child.
  void raised(pybind11::error_already_set& error) const {
    if (is_lost()) end(&error);
  }

 private:
  bool is_lost() const { return fork_generation() != generation_ && is_started_here(); }
  [[noreturn]] static void end(pybind11::error_already_set* error);

  const uint32_t generation_ = fork_generation();
  const ForeignCode foreign_;
};

}  // namespace inferkit
