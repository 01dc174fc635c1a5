#include <cstring>

#include "base/immortal.h"
#include "device/device.h"
#include "device/host_steps.h"

namespace inferkit {
namespace {

class CpuExecution final : public Execution {
 public:
  CpuExecution(const Program& program, BufferPool& pool, Nanos* taken)
      : program_(program),
        taken_(taken),
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
    std::byte** table = table_.data();
    for (const uint32_t slot : program_.input_slots) {
      table[slot] = const_cast<std::byte*>(static_cast<const std::byte*>(inputs[program_.operands[slot].index]));
    }
    for (const uint32_t slot : program_.output_slots) {
      table[slot] = static_cast<std::byte*>(outputs[program_.operands[slot].index]);
    }
    run_host_steps(program_, 0, program_.steps.size(), table, context, taken_);
  }

 private:
  const Program& program_;
  Nanos* const taken_;
  Buffer arena_;
  std::vector<std::byte*> table_;
};

void copy_on_host(const void* params, std::byte* const* io, const ExecContext&) {
  const size_t bytes = static_cast<const DeviceCopy*>(params)->bytes;
  if (bytes > 0) std::memcpy(io[0], io[1], bytes);  // what is empty may lie nowhere
}

class CpuDevice final : public Device {
 public:
  DeviceKind kind() const override { return DeviceKind::kCpu; }
  std::unique_ptr<Execution> prepare(const Program& program, BufferPool& pool, Nanos* taken) override {
    return std::make_unique<CpuExecution>(program, pool, taken);
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

std::string Device::failure() const { return {}; }
std::vector<KernelNote> Device::kernels(const Program&, const Step&) const { return {}; }

Device& cpu_device() {
  static CpuDevice& device = immortal(CpuDevice());
  return device;
}

}  // namespace inferkit
