// A graph with its plans, and runs that go from plan to plan: what a model does where one plan does not do all, and
// what the subgraphs of loops are.
#pragma once
#include <limits>
#include <memory>
#include <span>
#include <unordered_map>

#include "engine/compile/compile.h"
#include "engine/run/plan_cache.h"
#include "engine/runner.h"

namespace inferkit {

class RunProfile;
class SubgraphTable;

/// What every run of one model uses.
struct RunEnvironment {
  ModelCache* cache = nullptr;
  BufferPool* pool = nullptr;
  const SubgraphTable* subgraphs = nullptr;
  int threads = 1;                     // that one run may use
  const MappedFiles* files = nullptr;  // as CompileOptions::files
  Device* device = &cpu_device();
  Precision precision = Precision::kFloat32;  // as CompileOptions::precision
  bool fallback = false;                      // as CompileOptions::fallback
  Lacking* lacking = nullptr;                 // as CompileOptions::lacking
  RunProfile* profile = nullptr;              // of a run that is profiled; all that it runs is compiled for it
};

/// The threads that a run of this plan uses, of those that it may.
ExecContext exec_context_for(const Plan& plan, int threads);

/// What one run may still do; shared by the subgraphs that it runs.
inline constexpr int64_t kMaxIterations = 1'000'000;  // unless ModelOptions say otherwise
struct RunBudget {
  int64_t iterations = kMaxIterations;                         // of all loops together
  int64_t nanos = std::numeric_limits<int64_t>::max();         // of all that it does, as it is estimated
  size_t max_bytes = std::numeric_limits<size_t>::max();       // of one plan, and of what is held between plans
  std::shared_ptr<size_t> held = std::make_shared<size_t>(0);  // between plans; goes down as tensors go

  /// Throws Error(kInference) where less is left.
  void spend(int64_t estimate);
};

/// What a run gives its outputs to.
class RunSink {
 public:
  virtual ~RunSink() = default;
  /// As OutputSink::allocate.
  virtual void* allocate(size_t index, DType dtype, const Shape& shape) = 0;
  /// Output `index` is a sequence.
  virtual void give(size_t index, const Tensor& list) = 0;
};

/// Runs `first` and all that follows it. `inputs` are those of `graph`, which `first` is a plan of; `plans` is where
/// the plans that follow are kept. Throws Error.
void run_stages(const Graph& graph, PlanCache& plans, PlanCache::Lease first, std::span<const Tensor> inputs,
                RunSink& sink, const RunEnvironment& environment, RunBudget& budget, bool values_vary = false);

/// The body of a loop: its captured values are inputs after its own.
class Subgraph {
 public:
  Subgraph(const Graph& graph, std::shared_ptr<BufferPool> pool, size_t max_plans);

  const Graph& graph() const { return graph_; }
  /// The outputs in order, each owning its memory.
  std::vector<Tensor> run(std::span<const Tensor> inputs, const RunEnvironment& environment, RunBudget& budget);

  /// Around fork() alone.
  void lock() { plans_.lock(); }
  void unlock() { plans_.unlock(); }
  void forget_compiling() { plans_.forget_compiling(); }

 private:
  Graph graph_;
  PlanCache plans_;
};

/// The subgraphs of a model that run by themselves, nested ones included. Fixed once built.
class SubgraphTable {
 public:
  void add_all(const Graph& graph, const std::shared_ptr<BufferPool>& pool, size_t max_plans);
  Subgraph& of(const Graph& graph) const;
  void lock();
  void unlock();
  void forget_compiling();

 private:
  std::unordered_map<const Graph*, std::unique_ptr<Subgraph>> subgraphs_;
};

}  // namespace inferkit
