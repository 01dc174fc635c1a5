#include "bindings/signal_watch.h"

#include <unistd.h>

namespace inferkit {

bool SignalWatch::look(Nanos) {
  if (raised_) return true;
  if (::gettid() != ::getpid()) return false;  // no handler would run
  const FloatEnvironment::Word ours = FloatEnvironment::current();
  FloatEnvironment::set(floats_);
  PyEval_RestoreThread(thread_);
  raised_ = PyErr_CheckSignals() < 0;
  PyEval_SaveThread();
  FloatEnvironment::set(ours);
  return raised_;
}

}  // namespace inferkit
