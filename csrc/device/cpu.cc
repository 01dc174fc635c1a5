#include <cstring>

#include "base/cat.h"
#include "base/error.h"
#include "base/immortal.h"
#include "device/device.h"
#include "device/step_trace.h"
#include "platform/float_environment.h"
#include "platform/run_control.h"
#include "platform/threads.h"

namespace inferkit {
namespace {

/// Even if the estimate is a hundred times too low, such a program can be stopped in time.
constexpr int64_t kShortNanos = 200'000;

class CpuExecution final : public Execution {
 public:
  CpuExecution(const Program& program, BufferPool& pool)
      : program_(program),
        arena_(pool.acquire(program.arena_bytes, "arena")),
        table_(program.operands.size(), nullptr) {
    for (size_t i = 0; i < table_.size(); ++i) {
      const Operand& operand = program.operands[i];
      if (operand.kind == Operand::Kind::kConstant) {
        // Steps never write through a constant operand: lowering hands those out as inputs only.
        table_[i] = const_cast<std::byte*>(static_cast<const std::byte*>(operand.pointer));
      } else if (operand.kind == Operand::Kind::kArena) {
        table_[i] = arena_.data() + operand.offset;
      }
    }
  }

  void run(std::span<const void* const> inputs, std::span<void* const> outputs, const ExecContext& context) override {
    const FloatEnvironment ours;
    std::byte** table = table_.data();
    for (const uint32_t slot : program_.input_slots) {
      table[slot] = const_cast<std::byte*>(static_cast<const std::byte*>(inputs[program_.operands[slot].index]));
    }
    for (const uint32_t slot : program_.output_slots) {
      table[slot] = static_cast<std::byte*>(outputs[program_.operands[slot].index]);
    }
    const Step* step = program_.steps.data();
    const Step* const end = step + program_.steps.size();
    try {
      if (TraceRing* trace = step_trace.load(std::memory_order_acquire)) [[unlikely]] {
        for (; step != end; ++step) {
          const Nanos started = SteadyClock::instance().now();
          step->fn(step->params, table + step->first_operand, context);
          trace->add({.started = started, .finished = SteadyClock::instance().now(), .thread = thread_id()},
                     StepName(program_.labels[step->node]).view());
          RunControl::check();
        }
        return;
      }
      if (RunControl* control = RunControl::current()) [[unlikely]] {
        control->expect(program_.estimated_nanos);
        // Between the steps of a short program nobody looks at the clock, which would be a part of its time.
        const bool is_long = program_.estimated_nanos > kShortNanos;
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
      throw Error(error.code(), error.reason(), cat(program_.labels[step->node], ": ", error.what()));
    }
  }

 private:
  const Program& program_;
  Buffer arena_;
  std::vector<std::byte*> table_;
};

void copy_on_host(const void* params, std::byte* const* io, const ExecContext&) {
  std::memcpy(io[0], io[1], static_cast<const DeviceCopy*>(params)->bytes);
}

class CpuDevice final : public Device {
 public:
  DeviceKind kind() const override { return DeviceKind::kCpu; }
  std::unique_ptr<Execution> prepare(const Program& program, BufferPool& pool) override {
    return std::make_unique<CpuExecution>(program, pool);
  }
  StepFn copy_step() const override { return copy_on_host; }
  bool borrows_inputs() const override { return true; }
};

}  // namespace

std::string_view device_kind_name(DeviceKind kind) {
  switch (kind) {
    case DeviceKind::kCpu:
      return "cpu";
    case DeviceKind::kCuda:
      return "cuda";
    case DeviceKind::kNull:
      return "null";
  }
  return "";
}

Device& cpu_device() {
  static CpuDevice& device = immortal(CpuDevice());
  return device;
}

}  // namespace inferkit
