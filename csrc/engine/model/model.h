// A loaded model: graph, weights and the cache of plans. Immutable to its users, and shared by all threads.
#pragma once
#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/compile/compile.h"
#include "engine/compile/lacking.h"
#include "engine/model/explain.h"
#include "engine/model/packed_weights.h"
#include "engine/run/plan_cache.h"
#include "engine/run/program.h"
#include "engine/runner.h"
#include "graph/model_weights.h"
#include "memory/weight_store.h"

namespace inferkit {

struct ModelOptions {
  /// Where it runs.
  Device* device = &cpu_device();
  /// Whether nodes that the device has no lowering for run on the CPU, with copies before and after them. Without it
  /// they are errors at load.
  bool fallback = false;
  /// What another device lacks for it is collected there; null where nobody asks.
  std::shared_ptr<Lacking> lacking;
  /// What it computes in: with kBf16, nodes that have a way to run in bf16 take it.
  Precision precision = Precision::kFloat32;
  /// Threads that one run may use, its own included; 0 takes what the process's pool has. The bits do not depend on it.
  int threads = 0;
  /// Compiled shapes that are kept.
  size_t max_plans = 64;
  /// Memory that one run may take besides its inputs; 0 takes default_max_run_bytes().
  size_t max_run_bytes = 0;
  /// Iterations that the loops of one run may make, nested ones included.
  int64_t max_iterations = kMaxIterations;
  /// Time that folding, and runs on zeros, may each take while the model is loaded, as it is estimated; they are given
  /// up when they have taken twice that.
  int64_t max_load_nanos = 1'000'000'000;
  /// Where the weights of a file are kept.
  Placement placement = Placement::kMapped;
  /// The outputs that are wanted, in this order; empty for all. What no other needs is not loaded.
  std::vector<std::string> outputs;
  /// A file that save_packed() wrote for this model; empty for none. Loading fails where it does not fit.
  std::string packed_file;
  /// A folder where such files are kept: the one of this model is used, and written where it is missing or does not
  /// fit. Empty for none; not together with packed_file.
  std::string packed_cache;
  /// Where arenas come from; null takes the process's pool.
  std::shared_ptr<BufferPool> pool;
};

struct ModelMemory {
  size_t file_bytes = 0;           // of the model and its external data
  size_t mapped_bytes = 0;         // constants in the files' own pages alone, shared with other processes
  size_t copied_bytes = 0;         // constants in memory of their own
  size_t misaligned_bytes = 0;     // of those, what was copied only because the file puts it at odd addresses
  size_t packed_bytes = 0;         // weights as kernels want them
  size_t packed_shared_bytes = 0;  // of those, what is in the pages of a packed file, shared with other processes
  PlanCacheStats plans;
};

/// How a model came to its packed weights.
struct PackedUse {
  std::string file;  // that they are read from; empty where there is none
  std::string why;   // the folder had none that could be used, or was given none; empty where all went well
};

class Model final : public Runner {
 public:
  /// Reads, checks and optimises the file, and compiles it once to see that all of it can be run. Runs and compilations
  /// that read the file's pages fail with Error(kModel) once the file has changed.
  static std::shared_ptr<Model> load(const std::string& path, ModelOptions options = {});
  /// The same from memory; external data is refused.
  static std::shared_ptr<Model> load_bytes(std::span<const std::byte> bytes, ModelOptions options = {});

  /// `packed`, which may be null, was opened for `file`, among whose files it is.
  explicit Model(ModelFile file, ModelOptions options, std::string path,
                 std::shared_ptr<const PackedFile> packed = nullptr);
  ~Model() override;

  std::span<const PortSpec> inputs() const override { return inputs_; }
  std::span<const PortSpec> outputs() const override { return outputs_; }
  std::span<const InputSense> senses() const override { return senses_; }
  Status run(std::span<const TensorView> inputs, OutputSink& sink) noexcept override;
  /// The same with sequences among the inputs.
  Status run_lists(std::span<const Tensor> inputs, OutputSink& sink) noexcept;
  /// Whether there are sequences, or optionals, among its inputs or outputs: only run_lists takes the former.
  bool has_lists() const { return has_lists_; }
  bool needs_gil() const override { return false; }
  int64_t estimate_nanos(std::span<const Shape> shapes) const override;
  int threads() const override { return options_.threads; }
  bool values_decide() const override { return staged_.load(std::memory_order_relaxed); }
  bool rows_mix() const override { return !mixing_node_.empty(); }
  Device& device() const { return *options_.device; }
  /// What its device said when it failed; "" while it works.
  std::string device_failure() const { return options_.device->failure(); }
  /// A node because of which the rows of a run depend on each other; "" where they do not.
  const std::string& mixing_node() const { return mixing_node_; }
  bool rows_draw() const override { return rows_draw_; }
  /// True where a plan of it has strings: its runs are made by run(), not by a session alone.
  bool has_text() const { return text_.load(std::memory_order_relaxed); }

  /// For callers that want the outputs' shapes before the run. Input shapes must fit the specs. The first is empty
  /// where a plan for them must be compiled, which takes a while.
  std::optional<PlanCache::Lease> try_acquire(std::span<const Shape> shapes) { return plans_.try_acquire(shapes); }
  PlanCache::Lease acquire(std::span<const Shape> shapes) { return plans_.acquire(shapes); }
  ExecContext exec_context(const Plan& plan) const { return exec_context_for(plan, options_.threads); }

  /// The plan for inputs of these shapes, which must fit the specs, and what was decided about it.
  Explained explain(std::span<const Shape> shapes);
  /// All that a run of these inputs does, with how long it takes: run once, then `runs` times, which is at least 1.
  Explained profile(std::span<const Tensor> inputs, int64_t runs);

  /// One run in this precision, with plans and packed weights of its own, which end with it: to compare with.
  void run_in(Precision precision, std::span<const Tensor> inputs, OutputSink& sink);

  /// The inputs that the file gives a default for, in its order, which are constants of this model.
  std::span<const PortSpec> defaults() const { return defaults_; }
  /// The same model with some of the defaults, by their names, as inputs after the others, in the file's order. Made
  /// once and kept, the last few of them. Throws as loading does, with what the file declares of them.
  /// Those of a shape that the file fixes are PortSpec::shared where the batch is free, and may be left out.
  std::shared_ptr<Model> with_inputs(const std::vector<std::string>& names);

  Precision precision() const { return options_.precision; }
  const std::string& path() const { return path_; }
  const ModelFile& file() const { return file_; }
  ModelMemory memory() const;
  /// Writes what has been packed so far to a file, for ModelOptions::packed_file of other processes. Throws
  /// std::system_error where that fails, and Error(kModel) where the model's file was touched since it was loaded.
  void save_packed(const std::string& path) const;
  const PackedUse& packed_use() const { return packed_use_; }
  /// The model's initializers, as they stand in the file. Throws as weights_of.
  std::shared_ptr<const Weights> weights();
  void trim() { plans_.trim(); }

  /// Around fork() alone: every lock of the model, none of which is held for long.
  void lock();
  void unlock();
  /// In the child, between them: what other threads were compiling and packing.
  void forget_unfinished();

 private:
  /// That its runs may use.
  static int threads_of(const ModelOptions& options);
  static std::shared_ptr<Model> make(ModelFile file, ModelOptions options, const std::string& path);
  static InputFacts facts_of(const Tensor& input);
  std::shared_ptr<const Plan> compile_for(std::span<const InputFacts> facts, PlanNotes* notes);
  /// `threads`: that a run of it may use; 0: as many as the model's.
  std::shared_ptr<const Plan> compile_for(std::span<const InputFacts> facts, PlanNotes* notes, Precision precision,
                                          ModelCache& packed, int threads = 0);
  struct ProfiledRuns;
  PlanCache::Lease acquire_lists(std::span<const Tensor> inputs);
  std::shared_ptr<const Plan> compile_for(std::span<const Shape> shapes, PlanNotes* notes = nullptr);
  void read_specs();
  void forget_copied_files();
  class PortSink;
  struct Trial;
  std::vector<Port> probe_outputs(std::span<const InputFacts> facts, Trial& trial);
  std::vector<Port> run_on_constants(std::span<const InputFacts> facts, int value, RunBudget& budget, Trial& trial);
  void probe(std::span<const std::optional<DType>> told);
  using FarShapes = std::vector<Shape>;
  std::vector<FarShapes> look_far();
  void find_shared();
  std::string find_mixing();
  struct FreeDims {
    std::vector<size_t> group;  // of each, in the order in which the inputs have them
    size_t groups = 0;
  };
  FreeDims free_dims() const;
  std::optional<bool> takes_any_rows(const FreeDims& dims, const std::vector<int64_t>& sizes, int64_t few,
                                     int64_t many);
  std::optional<std::string> mixing_of(const FreeDims& dims, const std::vector<int64_t>& sizes, int64_t few,
                                       int64_t many);
  bool draws_rows(const Graph& graph) const;
  RunEnvironment environment() const;
  /// Runs that go from plan to plan, or hold strings.
  void run_whole(PlanCache::Lease lease, std::span<const Tensor> inputs, OutputSink& sink);

  const ModelOptions options_;  // `threads` is what there is, never 0
  const std::string path_;
  ModelFile file_;
  Initializers initializers_;  // as they stand in the file
  std::vector<PortSpec> inputs_, outputs_, defaults_;
  std::vector<InputSense> senses_;
  std::shared_ptr<ModelFile> original_;  // as it was read, where there are defaults
  std::unique_ptr<PackedWeights> packed_;
  PackedUse packed_use_;  // written by load alone
  SubgraphTable subgraphs_;
  PlanCache plans_;
  std::string mixing_node_;
  bool has_lists_ = false;
  bool rows_draw_ = false;
  std::shared_ptr<const Weights> weights_;  // of them, once somebody asked
  std::mutex variants_mutex_;               // for variants_ and weights_: held to look one up, or put one in
  std::deque<std::pair<std::vector<std::string>, std::shared_ptr<Model>>> variants_;
  std::atomic<bool> text_{false};    // a plan of it has strings; relaxed, as the next
  std::atomic<bool> staged_{false};  // a plan of it has a continuation; relaxed: it publishes nothing else
};

}  // namespace inferkit
