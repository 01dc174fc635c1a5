// Splitting a step over the threads that its run may use, and over time.
#pragma once
#include <algorithm>
#include <cstdint>

#include "engine/plan/plan.h"
#include "platform/run_control.h"
#include "platform/thread_pool.h"

namespace inferkit {

/// body(i) for every i in [0, pieces), on as many threads as the run may use.
inline void for_pieces(const ExecContext& context, int64_t pieces, const FunctionRef<void(int64_t)>& body) {
  if (context.pool && context.max_threads > 1) {
    context.pool->parallel_for(pieces, context.max_threads, body);
  } else {
    for_parts(pieces, body);
  }
}

/// f(first, last) over pieces of [0, count) of at least `grain` each, on several threads where the run may use them. f
/// must not throw, and where the pieces end must not change a bit. Some are left out where the run is told to stop.
template <class F>
void for_ranges(const ExecContext& context, int64_t count, int64_t grain, F&& f) {
  grain = std::max<int64_t>(grain, 1);
  const bool parallel = context.pool && context.max_threads > 1;
  int64_t wanted = count < 2 * grain ? 1 : parallel ? int64_t{4} * context.max_threads : 1;
  if (count >= 2 * grain) {
    if (const RunControl* control = RunControl::current()) wanted = std::max<int64_t>(wanted, control->slices());
  }
  if (wanted < 2) {
    f(int64_t{0}, count);
    return;
  }
  const int64_t pieces = std::min(count / grain, wanted);
  for_pieces(context, pieces, [&](int64_t i) { f(count * i / pieces, count * (i + 1) / pieces); });
}

/// Runs body(task, slot) for every task; `slots` bounds how many run at once, each with scratch of its own. Tasks whose
/// memory is close to each other should be neighbours: a thread begins with its own share of them (ThreadPool).
template <class F>
void for_tasks(const ExecContext& context, int64_t tasks, int slots, F&& body) {
  const int threads = context.pool ? std::min({slots, context.max_threads, context.pool->size()}) : 1;
  if (threads < 2 || tasks < 2) {
    for_parts(tasks, [&](int64_t i) { body(i, 0); });
    return;
  }
  context.pool->parallel_for(tasks, threads, body);
}

}  // namespace inferkit
