// A plan: one model compiled for one set of input shapes, as a program of its device; immutable once built, shared by
// all threads. A session holds what one run at a time needs.
#pragma once
#include <cstddef>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "base/tensor_view.h"
#include "device/device.h"
#include "engine/plan/continuation.h"
#include "graph/ir.h"
#include "memory/buffer_pool.h"
#include "memory/mapped_files.h"

namespace inferkit {

struct Port {
  DType dtype = DType::kF32;
  Shape shape;
};

struct Plan : Program {
  Device* device = &cpu_device();  // that it is compiled for
  std::vector<Port> inputs;
  std::vector<Port> outputs;
  std::vector<PlanResult> results;           // what each output is
  std::shared_ptr<const Continuation> next;  // null where the plan computes every output of the model
  MappedFiles files;                         // what its steps read where it stands

  // Owners of what the raw pointers of the program point into.
  std::deque<std::unique_ptr<std::byte[]>> params;
  std::vector<std::shared_ptr<const void>> owners;
};

/// The mutable part of a run. Not thread-safe: one run at a time.
class Session {
 public:
  /// Each run writes how long each step took to `taken`, where that is not null.
  Session(std::shared_ptr<const Plan> plan, BufferPool& pool, Nanos* taken = nullptr)
      : plan_(std::move(plan)), execution_(plan_->device->prepare(*plan_, pool, taken)) {}

  const Plan& plan() const { return *plan_; }
  /// Runs the plan from `inputs` to `outputs` (one pointer per port). May throw Error; kModel where a file that the
  /// plan reads is no longer what was loaded, and the outputs are not to be used.
  void run(std::span<const void* const> inputs, std::span<void* const> outputs, const ExecContext& context) {
    if (plan_->files.empty()) return execution_->run(inputs, outputs, context);
    plan_->files.guarded([&] { execution_->run(inputs, outputs, context); });
  }

  /// The same as Execution::run_placed.
  bool run_placed(std::span<PlacedInput> inputs, std::span<void* const> outputs, CudaLane& lane,
                  const ExecContext& context) {
    if (plan_->files.empty()) return execution_->run_placed(inputs, outputs, lane, context);
    bool good = false;
    plan_->files.guarded([&] { good = execution_->run_placed(inputs, outputs, lane, context); });
    return good;
  }

 private:
  std::shared_ptr<const Plan> plan_;
  std::unique_ptr<Execution> execution_;
};

}  // namespace inferkit
