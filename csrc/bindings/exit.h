// The end of the interpreter, as seen by threads that are still inside a call of ours.
#pragma once

namespace inferkit {

class Runner;

/// Never returns: the process ends under the calling thread. Without the GIL.
[[noreturn]] void hang_thread();
/// The same, with the GIL, which it gives up.
[[noreturn]] void hang_with_gil();

/// The interpreter begins to exit, on the calling thread. Called once, by the package; with the GIL.
void begin_exit();
/// Whether the interpreter exits on another thread: the calling one is a daemon, and what it is told of batchers that
/// the exit has closed would be noise. With the GIL.
bool left_behind();

/// The interpreter is so far gone that threads that want the GIL are stuck for good: wait for none of them.
bool finalizing();
/// Throws Error(kClosed) where that is so and the model runs in such threads. With the GIL.
void refuse_endless_wait(const Runner& runner);

}  // namespace inferkit
