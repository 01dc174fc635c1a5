#include "device/host_steps.h"

#include "base/cat.h"
#include "base/error.h"
#include "device/step_trace.h"
#include "platform/float_environment.h"
#include "platform/run_control.h"
#include "platform/thread_pool.h"
#include "platform/threads.h"

namespace inferkit {
namespace {

/// Even if the estimate is a hundred times too low, such a program can be stopped in time.
constexpr int64_t kShortNanos = 200'000;

}  // namespace

void run_host_steps(const Program& program, size_t first, size_t last, std::byte* const* table,
                    const ExecContext& context, Nanos* taken) {
  const FloatEnvironment ours;
  const ThreadPool::Stretch stretch(context.max_threads > 1 ? context.pool : nullptr);
  const Step* step = program.steps.data() + first;
  const Step* const end = program.steps.data() + last;
  try {
    TraceRing* const trace = step_trace.load(std::memory_order_acquire);
    if (trace || taken) [[unlikely]] {
      if (RunControl* control = RunControl::current()) control->expect(program.estimated_nanos);
      for (; step != end; ++step) {
        const Nanos started = SteadyClock::instance().now();
        step->fn(step->params, table + step->first_operand, context);
        const Nanos finished = SteadyClock::instance().now();
        if (taken) taken[step - program.steps.data()] = finished - started;
        if (trace) {
          trace->add({.started = started, .finished = finished, .thread = thread_id()},
                     StepName(program.labels[step->node]).view());
        }
        RunControl::check();
      }
      return;
    }
    if (RunControl* control = RunControl::current()) [[unlikely]] {
      control->expect(program.estimated_nanos);
      // Between the steps of a short program nobody looks at the clock, which would be a part of its time.
      const bool is_long = program.estimated_nanos > kShortNanos;
      for (; step != end; ++step) {
        step->fn(step->params, table + step->first_operand, context);
        if (is_long || step + 1 == end) {
          RunControl::check();
        } else if (control->stopped()) {  // so this step was cut short
          throw Stopped();
        }
      }
      return;
    }
    for (; step != end; ++step) step->fn(step->params, table + step->first_operand, context);
  } catch (const Stopped&) {
    throw;
  } catch (const Error& error) {
    throw Error(error.code(), error.reason(), cat(program.error_label(step->node), ": ", error.what()));
  }
}

}  // namespace inferkit
