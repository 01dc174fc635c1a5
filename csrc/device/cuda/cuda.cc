#include "device/cuda/cuda.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "base/cat.h"
#include "base/error.h"

namespace inferkit {
namespace {

constexpr size_t kAlign = 256;  // of what lies in one block of memory
size_t aligned(size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

/// A block of the device's memory.
class DeviceBlock {
 public:
  DeviceBlock(CudaBackend& backend, size_t bytes) : backend_(backend), data_(backend.allocate(bytes)) {}
  ~DeviceBlock() { backend_.release(data_); }
  DeviceBlock(const DeviceBlock&) = delete;
  DeviceBlock& operator=(const DeviceBlock&) = delete;
  std::byte* data() const { return static_cast<std::byte*>(data_); }

 private:
  CudaBackend& backend_;
  void* const data_;
};

class PinnedBlock {
 public:
  PinnedBlock(CudaBackend& backend, size_t bytes) : backend_(backend), data_(backend.allocate_pinned(bytes)) {}
  ~PinnedBlock() { backend_.release_pinned(data_); }
  PinnedBlock(const PinnedBlock&) = delete;
  PinnedBlock& operator=(const PinnedBlock&) = delete;
  std::byte* data() const { return static_cast<std::byte*>(data_); }

 private:
  CudaBackend& backend_;
  void* const data_;
};

/// Constants that are on the device, each once for all executions that read it. An execution keeps what it reads, and
/// its program keeps the constant itself: while a block is there, no other constant can lie at its address.
class Uploads {
 public:
  std::shared_ptr<const DeviceBlock> get(CudaBackend& backend, const void* data, size_t bytes) {
    const std::scoped_lock lock(mutex_);
    auto& held = blocks_[{data, bytes}];
    if (auto block = held.lock()) return block;
    auto block = std::make_shared<DeviceBlock>(backend, bytes);
    backend.upload(block->data(), data, bytes);
    held = block;
    std::erase_if(blocks_, [](const auto& entry) { return entry.second.expired(); });
    return block;
  }

 private:
  std::mutex mutex_;  // held while a constant is uploaded, so that nobody uploads it a second time
  std::map<std::pair<const void*, size_t>, std::weak_ptr<const DeviceBlock>> blocks_;
};

class CudaExecution final : public Execution {
 public:
  CudaExecution(const Program& program, CudaBackend& backend, Uploads& uploads)
      : program_(program), backend_(backend), uploads_(uploads) {}

  void run(std::span<const void* const> inputs, std::span<void* const> outputs, const ExecContext&) override {
    // At the first run and not before: constants are read, which may lie in a file that only runs guard.
    if (!graph_) prepare();
    *fault() = 0;
    for (size_t i = 0; i < inputs.size(); ++i) copy(pinned_->data() + in_[i], inputs[i], program_.input_bytes[i]);
    graph_->run();
    if (const uint32_t step = *fault(); step != 0) {
      throw Error(ErrorCode::kInference, cat(program_.labels[program_.steps[step - 1].node],
                                             ": an index is out of range for the dimension that it counts along"));
    }
    for (size_t i = 0; i < outputs.size(); ++i) copy(outputs[i], pinned_->data() + out_[i], program_.output_bytes[i]);
  }

 private:
  static void copy(void* to, const void* from, size_t bytes) {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
  /// A kernel writes it, so the compiler must not think it knows what it holds.
  volatile uint32_t* fault() const { return reinterpret_cast<volatile uint32_t*>(pinned_->data()); }

  void prepare() {
    // The arena, then inputs and outputs, in one block of the device's memory; the word for faults, inputs and outputs
    // in one of pinned memory. The latter two lie equally far from where the inputs begin.
    size_t at = kAlign;
    in_.clear();
    out_.clear();
    for (const size_t bytes : program_.input_bytes) in_.push_back(std::exchange(at, at + aligned(bytes)));
    for (const size_t bytes : program_.output_bytes) out_.push_back(std::exchange(at, at + aligned(bytes)));
    const size_t arena = aligned(program_.arena_bytes);
    auto pinned = std::make_unique<PinnedBlock>(backend_, at);
    auto memory = std::make_unique<DeviceBlock>(backend_, arena + at);
    std::byte* const ports = memory->data() + arena;
    std::vector<std::shared_ptr<const DeviceBlock>> constants;
    std::vector<std::byte*> table;
    for (const Operand& operand : program_.operands) {
      table.push_back(address(operand, memory->data(), ports, constants));
    }
    graph_ = backend_.capture([&](LaunchQueue& queue) {
      queue.set_fault(reinterpret_cast<uint32_t*>(pinned->data()));
      for (size_t i = 0; i < in_.size(); ++i) {
        if (const size_t bytes = program_.input_bytes[i]) queue.copy(ports + in_[i], pinned->data() + in_[i], bytes);
      }
      const ExecContext context{.queue = &queue};
      for (size_t s = 0; s < program_.steps.size(); ++s) {
        const Step& step = program_.steps[s];
        queue.set_step(static_cast<uint32_t>(s));
        step.fn(step.params, table.data() + step.first_operand, context);
      }
      for (size_t i = 0; i < out_.size(); ++i) {
        if (const size_t bytes = program_.output_bytes[i]) queue.copy(pinned->data() + out_[i], ports + out_[i], bytes);
      }
    });
    pinned_ = std::move(pinned);
    memory_ = std::move(memory);
    constants_ = std::move(constants);
  }

  std::byte* address(const Operand& operand, std::byte* arena, std::byte* ports,
                     std::vector<std::shared_ptr<const DeviceBlock>>& constants) const {
    switch (operand.kind) {
      case Operand::Kind::kArena:
        return arena + operand.offset;
      case Operand::Kind::kInput:
        return ports + in_[operand.index] + operand.offset;
      case Operand::Kind::kOutput:
        return ports + out_[operand.index] + operand.offset;
      case Operand::Kind::kConstant:
        break;
    }
    if (!operand.pointer) return nullptr;  // left out
    if (operand.bytes == Operand::kUnknownBytes) throw Error(ErrorCode::kDevice, "a constant of unknown size");
    constants.push_back(uploads_.get(backend_, operand.pointer, std::max<size_t>(operand.bytes, 1)));
    return constants.back()->data();
  }

  const Program& program_;
  CudaBackend& backend_;
  Uploads& uploads_;
  std::vector<size_t> in_, out_;  // where each input and output begins
  std::unique_ptr<PinnedBlock> pinned_;
  std::unique_ptr<DeviceBlock> memory_;
  std::vector<std::shared_ptr<const DeviceBlock>> constants_;
  std::unique_ptr<CudaGraph> graph_;  // ends before the memory that it names
};

void copy_on_device(const void* params, std::byte* const* io, const ExecContext& context) {
  context.queue->copy(io[0], io[1], static_cast<const DeviceCopy*>(params)->bytes);
}

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(std::unique_ptr<CudaBackend> backend) : backend_(std::move(backend)) {}
  DeviceKind kind() const override { return DeviceKind::kCuda; }
  std::unique_ptr<Execution> prepare(const Program& program, BufferPool&) override {
    return std::make_unique<CudaExecution>(program, *backend_, uploads_);
  }
  StepFn copy_step() const override { return copy_on_device; }
  bool borrows_inputs() const override { return false; }

 private:
  const std::unique_ptr<CudaBackend> backend_;
  Uploads uploads_;
};

}  // namespace

std::unique_ptr<Device> make_cuda_device(std::unique_ptr<CudaBackend> backend) {
  return std::make_unique<CudaDevice>(std::move(backend));
}

}  // namespace inferkit
