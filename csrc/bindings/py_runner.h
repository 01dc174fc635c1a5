// A Python callable as a Runner.
#pragma once
#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "engine/runner.h"

namespace inferkit {

/// Calls `fn(*arrays)` with one array per input and takes one array, a sequence of them, or a mapping by output name.
/// What it raises becomes an InferenceError with the original as its cause. The arrays are the callable's to keep.
std::shared_ptr<Runner> make_py_runner(pybind11::object fn, std::vector<PortSpec> inputs,
                                       std::vector<PortSpec> outputs);

/// For the garbage collector: the callable of a runner made here (borrowed; null for any other), and letting go of it,
/// after which the runner only raises.
PyObject* callable_of(const Runner& runner);
void drop_callable(Runner& runner);

/// A call of a callable that has not returned yet.
struct LongestCall {
  unsigned long thread;  // as threading.get_ident() calls it
  uint64_t number;       // no other call of the process has it
  uint32_t process;      // fork_generation() of where it runs
};
/// The one of a runner made here that began first.
std::optional<LongestCall> longest_call(const Runner& runner);
/// Sleeps until some callable of the process runs; returns at once where one has been called since the last time. For
/// one thread. With the GIL, which it lets go of meanwhile.
void wait_for_call();

}  // namespace inferkit
