// Signals during long work of ours on Python's main thread: what a handler raises (KeyboardInterrupt) ends the work.
#pragma once
#include <pybind11/pybind11.h>

#include "platform/float_environment.h"
#include "platform/run_control.h"

namespace inferkit {

/// Made with the GIL, and for work without it on the same thread. Python's handlers run in the main thread alone, and
/// only while it has the GIL: so it takes it for a moment every 50 ms, and not at all in runs that are shorter. What a
/// handler raises stays the thread's pending error: set_exception() lets it stand, finish() throws it.
class SignalWatch final : public RunControl {
 public:
  SignalWatch() : RunControl(First::kLater), thread_(PyThreadState_Get()), scope_(this) {}
  /// With the GIL again, where the work seems to have ended well.
  void finish() const {
    if (raised_) throw pybind11::error_already_set();
  }

 protected:
  bool look(Nanos) override;

 private:
  PyThreadState* const thread_;
  const FloatEnvironment::Word floats_ = FloatEnvironment::current();  // the handlers'
  bool raised_ = false;
  const Scope scope_;
};

/// What `work` gives, which it does without the GIL; what a signal handler raises meanwhile ends it.
template <class Work>
auto without_gil(Work&& work) {
  const SignalWatch watch;
  try {
    auto result = [&] {
      const pybind11::gil_scoped_release release;
      return work();
    }();
    watch.finish();
    return result;
  } catch (const Stopped&) {
    watch.finish();
    throw;
  }
}

}  // namespace inferkit
