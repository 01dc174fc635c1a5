// A plan: one model compiled for one set of input shapes. A flat list of steps over pointers; immutable once built,
// shared by all threads. A session holds what one run at a time needs: an arena and the table of pointers.
#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/tensor_view.h"
#include "engine/plan/continuation.h"
#include "graph/ir.h"
#include "memory/buffer_pool.h"
#include "memory/mapped_files.h"

namespace inferkit {

class ThreadPool;

/// What a step may use besides its operands.
struct ExecContext {
  ThreadPool* pool = nullptr;  // nullptr: this run stays on its thread
  int max_threads = 1;
};

/// Runs one step. `io` holds the operands in the order in which the lowering named them; `params` is the struct that it
/// gave. Throws Error(kInference) where the data make the operation impossible (an index out of range).
using StepFn = void (*)(const void* params, std::byte* const* io, const ExecContext& context);

struct Step {
  StepFn fn = nullptr;
  const void* params = nullptr;  // lives in the plan
  uint32_t first_operand = 0;    // its pointers are table[first_operand...]
  uint32_t node = 0;             // index into Plan::labels
};

/// Where an operand's memory is.
struct Operand {
  enum class Kind : uint8_t { kConstant, kArena, kInput, kOutput };
  Kind kind = Kind::kConstant;
  uint32_t index = 0;             // of the model input or output
  size_t offset = 0;              // into the arena, the input or the output
  const void* pointer = nullptr;  // of a constant
};

struct Port {
  DType dtype = DType::kF32;
  Shape shape;
};

struct Plan {
  std::vector<Port> inputs;
  std::vector<Port> outputs;
  std::vector<Step> steps;
  std::vector<Operand> operands;                    // the table that sessions resolve into pointers
  std::vector<uint32_t> input_slots, output_slots;  // operands to patch before each run
  size_t arena_bytes = 0;
  int64_t estimated_nanos = 0;               // a guess at one run's duration on one thread
  std::vector<std::string> labels;           // node names, for errors and traces
  std::vector<PlanResult> results;           // what each output is
  std::shared_ptr<const Continuation> next;  // null where the plan computes every output of the model
  MappedFiles files;                         // what its steps read where it stands

  // Owners of what the raw pointers above point into.
  std::deque<std::unique_ptr<std::byte[]>> params;
  std::vector<std::shared_ptr<const void>> owners;
};

/// The mutable part of a run. Not thread-safe: one run at a time.
class Session {
 public:
  Session(std::shared_ptr<const Plan> plan, BufferPool& pool);

  const Plan& plan() const { return *plan_; }
  /// Runs the plan from `inputs` to `outputs` (one pointer per port). May throw Error; kModel where a file that the
  /// plan reads is no longer what was loaded, and the outputs are not to be used.
  void run(std::span<const void* const> inputs, std::span<void* const> outputs, const ExecContext& context);

 private:
  void run_steps(const ExecContext& context);

  std::shared_ptr<const Plan> plan_;
  Buffer arena_;
  std::vector<std::byte*> table_;
};

}  // namespace inferkit
