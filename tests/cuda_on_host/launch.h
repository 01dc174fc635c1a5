// Runs a grid of blocks on this thread; see cuda_on_host.h.
#pragma once
#include <cstdint>

#include "cuda_on_host.h"

namespace inferkit {
template <class Signature>
class FunctionRef;
}

namespace inferkit::cuda_on_host {

struct Grid {
  Dim3 blocks = {}, threads = {};
  size_t shared_bytes = 0;
  uint64_t seed = 1;  // of the order of blocks, and of the turns of threads
  /// For tests of tests: of every `drop_every` barriers that a thread comes to, number `drop` is none. 0: all are.
  unsigned drop_every = 0, drop = 0;
};

/// Calls `body` once for each thread. Throws std::runtime_error, which names the seed, where a block waits for ever (a
/// barrier or an exchange that not all come to), writes past its shared memory, or does what is undefined on a device.
/// What fibers hold on their stacks is dropped then: kernels own nothing.
void launch(const Grid& grid, const FunctionRef<void()>& body);

}  // namespace inferkit::cuda_on_host
