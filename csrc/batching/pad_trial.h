// Whether requests to a model can be padded, tried on some that are made up, before any come.
#pragma once
#include <cstdint>
#include <span>
#include <string>

#include "batching/padding.h"
#include "engine/runner.h"
#include "memory/buffer_pool.h"
#include "platform/thread_pool.h"

namespace inferkit {

/// What a batch may have at most, as a trial has no larger ones.
struct TrialLimits {
  int64_t rows = 1;
  int64_t elements = 0;  // of the largest input; 0: any number
  bool brief = false;    // of lengths above 64 two requests or few more, and none of a row that is enormous
};

/// Whether a run failed since the program is to stop, and not for what the model is.
using AsksToStop = FunctionRef<bool(const Status&)>;

/// Runs requests that are made up, from a seed, by themselves and padded to each of `lengths`, beside others. "" where
/// the answers are the same, or where the model cannot run on such inputs; else where they differ. `rows` are the
/// shapes of a row of each input; what is free there and not padded is taken for 2. Throws what asks to stop, Stopped
/// where the thread's work is to stop, and std::invalid_argument where a padded row has more elements than there are.
std::string try_padding(Runner& runner, BufferPool& pool, const Padding& padding, std::span<const Shape> rows,
                        std::span<const int64_t> lengths, TrialLimits limits, AsksToStop asks_to_stop);

}  // namespace inferkit
