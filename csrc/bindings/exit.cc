#include "bindings/exit.h"

#include <pybind11/pybind11.h>
#include <unistd.h>

#include "engine/runner.h"
#include "platform/threads.h"

namespace inferkit {
namespace {
uint32_t exiting_thread = 0;  // guarded by the GIL
}

void hang_thread() {
  for (;;) ::pause();
}

void hang_with_gil() {
  PyEval_SaveThread();
  hang_thread();
}

void begin_exit() { exiting_thread = thread_id(); }

bool left_behind() { return exiting_thread != 0 && exiting_thread != thread_id(); }

bool finalizing() { return !Py_IsInitialized(); }

void refuse_endless_wait(const Runner& runner) {
  if (runner.needs_gil() && finalizing()) {
    throw Error(ErrorCode::kClosed, "Python is shutting down, and the model cannot run any more");
  }
}

}  // namespace inferkit
