// Splitting a step over the threads that its run may use.
#pragma once
#include <algorithm>
#include <cstdint>

#include "engine/plan.h"
#include "platform/thread_pool.h"

namespace inferkit {

/// f(first, last) over pieces of [0, count) of at least `grain` each, on several threads where the run may use them. f
/// must not throw, and where the pieces end must not change a bit.
template <class F>
void for_ranges(const ExecContext& context, int64_t count, int64_t grain, F&& f) {
  grain = std::max<int64_t>(grain, 1);
  if (!context.pool || context.max_threads <= 1 || count < 2 * grain) {
    f(int64_t{0}, count);
    return;
  }
  const int64_t pieces = std::min<int64_t>(count / grain, int64_t{4} * context.max_threads);
  context.pool->parallel_for(pieces, context.max_threads,
                             [&](int64_t i) { f(count * i / pieces, count * (i + 1) / pieces); });
}

}  // namespace inferkit
