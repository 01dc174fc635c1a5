#include "engine/plan/plan.h"

#include "base/error.h"
#include "device/step_trace.h"
#include "platform/float_environment.h"
#include "platform/run_control.h"
#include "platform/threads.h"

namespace inferkit {

Session::Session(std::shared_ptr<const Plan> plan, BufferPool& pool)
    : plan_(std::move(plan)),
      arena_(pool.acquire(plan_->arena_bytes, "arena")),
      table_(plan_->operands.size(), nullptr) {
  for (size_t i = 0; i < table_.size(); ++i) {
    const Operand& operand = plan_->operands[i];
    if (operand.kind == Operand::Kind::kConstant) {
      // Steps never write through a constant operand: lowering hands those out as inputs only.
      table_[i] = const_cast<std::byte*>(static_cast<const std::byte*>(operand.pointer));
    } else if (operand.kind == Operand::Kind::kArena) {
      table_[i] = arena_.data() + operand.offset;
    }
  }
}

void Session::run(std::span<const void* const> inputs, std::span<void* const> outputs, const ExecContext& context) {
  const FloatEnvironment ours;
  const Plan& plan = *plan_;
  std::byte** table = table_.data();
  for (const uint32_t slot : plan.input_slots) {
    table[slot] = const_cast<std::byte*>(static_cast<const std::byte*>(inputs[plan.operands[slot].index]));
  }
  for (const uint32_t slot : plan.output_slots)
    table[slot] = static_cast<std::byte*>(outputs[plan.operands[slot].index]);
  if (plan.files.empty()) return run_steps(context);
  plan.files.guarded([&] { run_steps(context); });
}

void Session::run_steps(const ExecContext& context) {
  const Plan& plan = *plan_;
  std::byte** table = table_.data();
  const Step* step = plan.steps.data();
  const Step* const end = step + plan.steps.size();
  try {
    if (TraceRing* trace = step_trace.load(std::memory_order_acquire)) [[unlikely]] {
      for (; step != end; ++step) {
        const Nanos started = SteadyClock::instance().now();
        step->fn(step->params, table + step->first_operand, context);
        trace->add({.started = started, .finished = SteadyClock::instance().now(), .thread = thread_id()},
                   StepName(plan.labels[step->node]).view());
        RunControl::check();
      }
      return;
    }
    if (RunControl* control = RunControl::current()) [[unlikely]] {
      control->expect(plan.estimated_nanos);
      for (; step != end; ++step) {
        step->fn(step->params, table + step->first_operand, context);
        RunControl::check();  // the last one may have been cut short, too
      }
      return;
    }
    for (; step != end; ++step) step->fn(step->params, table + step->first_operand, context);
  } catch (const Stopped&) {
    throw;
  } catch (const Error& error) {
    throw Error(error.code(), error.reason(), cat(plan.labels[step->node], ": ", error.what()));
  }
}

}  // namespace inferkit
