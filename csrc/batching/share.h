// How much of what waits one batch takes, where others could run the rest at the same time.
#pragma once
#include <cstdint>

#include "batching/cost_curve.h"
#include "platform/thread_pool.h"

namespace inferkit {

/// What a run of so many rows takes, in nanoseconds; 0 where nothing is known.
using TypicalCost = FunctionRef<Nanos(int64_t rows)>;

/// Of `rows` that wait, how many a batch of at most `most` should take where `idle` others could run at once: a pure
/// function. All that it may, unless several smaller batches side by side would be over clearly sooner, by what runs
/// cost; waking the others, one after the other, is part of that. At least `first`, the rows of the request that goes
/// first.
int64_t share_of(int64_t rows, int64_t most, int64_t first, int idle, TypicalCost cost);

}  // namespace inferkit
