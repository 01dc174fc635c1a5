// Graph + concrete input shapes -> plan: infer shapes, fold what the shapes decide, lower what is needed, place memory.
#pragma once
#include <atomic>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/compile/lower.h"
#include "engine/compile/precision.h"
#include "engine/compile/time_budget.h"
#include "engine/plan/plan.h"
#include "graph/ir.h"

namespace inferkit {

/// Every operator of `graph` (subgraphs included) that no family registers, one line each; empty where all are there.
std::vector<std::string> missing_operators(const Graph& graph);
/// Throws Error(kModel) where a node has more or fewer inputs or outputs than its operator: passes rely on it.
void check_arities(const Graph& graph);
/// Every output that an operator always has gets a value, also where a node leaves it out: lowerings rely on it.
void name_required_outputs(Graph& graph);
/// All that a model needs and inferkit lacks, one line each.
class Unsupported : public Error {
 public:
  explicit Unsupported(std::vector<std::string> lines);
  const std::vector<std::string>& lines() const { return lines_; }

 private:
  std::vector<std::string> lines_;
};

struct ListInput;

/// What is known of an input of a graph that is to be compiled.
struct InputFacts {
  DType dtype = DType::kF32;
  Shape shape;
  const Tensor* value = nullptr;                    // where the plan is to be for this value alone
  bool foreign = true;                              // the caller's memory, which others may write during a run
  bool is_list = false;                             // a sequence, whose type alone the above tells
  std::shared_ptr<const ListInput> list = nullptr;  // where the plan is to be for what it is made of
};
struct ListInput {
  bool none = false;
  std::vector<InputFacts> items;
};

/// What is no sequence.
inline constexpr int64_t kNoList = -1;
/// The inputs of a plan: those of the graph without its sequences, then the tensors of those that the plan is made for.
/// What a plan calls them goes on from the graph's values. visit(id, i, k): tensor k of
/// sequence i, or input i itself where k is -1. `count_of(i)` is how many tensors there are, or kNoList.
template <class Counts, class Visit>
void for_each_plan_input(const Graph& graph, const Counts& count_of, const Visit& visit) {
  for (size_t i = 0; i < graph.inputs.size(); ++i) {
    if (count_of(i) == kNoList) visit(graph.inputs[i], i, -1);
  }
  auto next = static_cast<ValueId>(graph.values.size());
  for (size_t i = 0; i < graph.inputs.size(); ++i) {
    for (int64_t k = 0; k < count_of(i); ++k) visit(next++, i, k);
  }
}

class LoweringWishes;
class Lacking;
struct PlanNotes;

/// How to compile.
struct CompileOptions {
  /// The graph is the rest that a plan left; null for a whole one.
  const Continuation* continuation = nullptr;
  /// Values differ from run to run (the body of a loop): nodes that need one run on values, rather than that what
  /// follows is compiled anew for each.
  bool values_vary = false;
  /// For a look at shapes alone, of which nothing is lowered: where only a run chooses, an If becomes this branch, and
  /// a Loop or Scan two rounds of its body.
  enum class Imagined : uint8_t { kNothing, kThen, kElse };
  Imagined imagined = Imagined::kNothing;
  /// What one run of the plan may take; PlanTooLarge where it would pass.
  size_t max_run_bytes = std::numeric_limits<size_t>::max();
  /// Where the plan will run.
  Device* device = &cpu_device();
  /// Whether nodes that it has no lowering for run on the CPU.
  bool fallback = false;
  /// What the model computes in.
  Precision precision = Precision::kFloat32;
  /// How many threads a run of the plan may use, its own included.
  int threads = 1;
  /// What constants may be views of; null: nothing that changes.
  const MappedFiles* files = nullptr;
  /// Which lowerings to take where they can run a node; null: as INFERKIT_LOWERING says.
  const LoweringWishes* wishes = nullptr;
  /// Gets what another device lacks for the plan, where it is not null.
  Lacking* lacking = nullptr;
  /// Gets what can be said of the plan, where it is not null.
  PlanNotes* notes = nullptr;
  /// Set where the plan has values of strings, if it is not null: its runs need a TextHeap.
  std::atomic<bool>* text = nullptr;
};

/// Compiles `graph` for inputs of these dtypes and shapes, as far as it can be without values that only a run gives;
/// what is left is the plan's `next`. Throws Error(kModel) where the graph contradicts itself for them, and
/// Error(kUnsupportedOp) that lists every node that cannot be run.
std::shared_ptr<const Plan> compile(const Graph& graph, std::span<const InputFacts> inputs, ModelCache& cache,
                                    const CompileOptions& options = {});

/// The shapes of the graph's outputs for inputs of these, as far as they follow without a run; nothing is compiled.
/// Throws what compile() throws of shapes.
std::vector<std::optional<Shape>> infer_outputs(const Graph& graph, std::span<const InputFacts> inputs,
                                                ModelCache& cache, const CompileOptions& options = {});

struct EvaluateLimits {
  size_t bytes = std::numeric_limits<size_t>::max();      // of all outputs
  TimeBudget* time = nullptr;                             // what it takes is taken from there
  size_t run_bytes = std::numeric_limits<size_t>::max();  // as CompileOptions::max_run_bytes: an error where passed
  std::function<void(int64_t)> before_run = nullptr;      // gets the estimate of what is within the limits; may throw
};

/// Runs one node on constants. Empty where it cannot be done (an operator that is not there or has subgraphs, a value
/// that would pass the limits, its time over); throws where the node is wrong.
std::vector<Tensor> evaluate_node(const Node& node, std::span<const Tensor* const> inputs,
                                  const EvaluateLimits& limits = {});

}  // namespace inferkit
