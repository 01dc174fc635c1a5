// Which slices of a core the workers of a batcher ask the kernel for.
#pragma once
#include <array>
#include <atomic>
#include <cstddef>

#include "platform/clock.h"
#include "platform/time_slice.h"

namespace inferkit {

/// Learns from what its runs are likely to take, and chooses the shortest of a few slices that nearly all of them fit
/// into: a run that does not is interrupted where others want the core. A new choice takes a system call of each
/// worker, so there is one after every few runs at first, and after every 256 of them in the end; a longer slice is
/// chosen at once, a shorter one only where it is a quarter. Lock-free; relaxed throughout: figures, which order
/// nothing, and a lost update is one run less.
class SliceChoice {
 public:
  /// A run is about to begin that is likely to take so long; 0: nothing is known of it.
  void run(Nanos likely) noexcept;
  /// What fits; 0 until enough is known.
  Nanos wanted() const noexcept { return wanted_.load(std::memory_order_relaxed); }

 private:
  /// kShortestSlice, twice that, and so on; the last one takes the rest.
  static constexpr size_t kSteps = 11;
  static constexpr uint32_t kFirst = 2, kLast = 256;  // runs that are looked at together

  void choose(uint32_t runs) noexcept;

  std::array<std::atomic<uint32_t>, kSteps> counts_{};  // runs since the last choice, by the slice that each fits into
  std::atomic<uint32_t> runs_{0};
  std::atomic<uint32_t> next_{kFirst};  // so many runs to the next choice
  std::atomic<Nanos> wanted_{0};
};

}  // namespace inferkit
