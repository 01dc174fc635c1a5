#include "engine/model/explain.h"

#include <algorithm>

#include "engine/compile/plan_limits.h"
#include "engine/model/model.h"
#include "engine/plan/text_heap.h"
#include "engine/run/run_profile.h"
#include "platform/rehearsal.h"
#include "platform/run_control.h"
#include "platform/stoppable.h"

namespace inferkit {
namespace {

/// The nodes of the file that a graph's stand for.
void append_origins(std::span<const Node> nodes, std::vector<NodeOrigin>& out) {
  for (const Node& node : stoppable(nodes)) {
    for (const NodeOrigin& origin : node.origins()) out.push_back(origin);
  }
}

}  // namespace

/// Holds the outputs of one run, and tells their shapes. Named outside, as a lambda of ProfiledRuns holds one.
class ShapeSink final : public RunSink {
 public:
  explicit ShapeSink(BufferPool& pool) : pool_(pool) {}
  void* allocate(size_t index, DType dtype, const Shape& shape) override {
    outputs.push_back({index, {dtype, shape}});
    buffers_.push_back(pool_.acquire(std::max<size_t>(value_bytes(dtype, shape), 1), "profile"));
    return buffers_.back().data();
  }
  void give(size_t /*index*/, const Tensor& /*list*/) override {}
  std::vector<ExplainedOutput> outputs;

 private:
  BufferPool& pool_;
  std::vector<Buffer> buffers_;
};

Explained Model::explain(std::span<const Shape> shapes) {
  PlanNotes notes;
  std::vector<InputFacts> facts;
  for (size_t i = 0; i < inputs_.size(); ++i) {
    facts.push_back(facts_of({inputs_[i].dtype, shapes[i], nullptr, nullptr}));
    facts.back().is_list = inputs_[i].is_list();
  }
  const std::shared_ptr<const Plan> plan = compile_for(facts, &notes);
  Explained out;
  for (const InputFacts& in : facts) out.inputs.push_back({in.dtype, in.shape});
  for (size_t i = 0; i < plan->outputs.size(); ++i) {
    const int output = plan->results[i].output;
    if (output >= 0) out.outputs.push_back({static_cast<size_t>(output), plan->outputs[i]});
  }
  for (NodeNote& note : notes.nodes) {
    out.estimated_nanos += note.nanos;
    out.nodes.push_back({.note = std::move(note)});
  }
  for (const auto& [data, bytes] : notes.constants) out.weight_bytes += bytes;
  out.complete = plan->next == nullptr;
  if (plan->next) {
    append_origins(plan->next->dynamic, out.waiting);
    append_origins(plan->next->rest.nodes, out.waiting);
  }
  out.threads = exec_context(*plan).max_threads;
  out.arena_bytes = plan->arena_bytes;
  return out;
}

/// Plans of their own, whose steps look at the clock; the model's stay as they are.
struct Model::ProfiledRuns {
  ProfiledRuns(Model& of, std::span<const Tensor> from, int threads)
      : model(of),
        inputs(from),
        profile(*of.options_.pool),
        plans(nullptr, of.options_.pool, of.options_.max_plans, 1) {
    subgraphs.add_all(of.file_.graph, of.options_.pool, of.options_.max_plans);
    environment = of.environment();
    environment.subgraphs = &subgraphs;
    environment.profile = &profile;
    environment.threads = threads;
    for (const Tensor& in : inputs) {
      shapes.push_back(in.shape);
      facts.push_back(facts_of(in));
    }
  }

  /// One run, with the outputs that it had; end_run() of the profile is to follow.
  std::vector<ExplainedOutput> run() {
    RunControl::check();
    const ModelOptions& options = model.options_;
    RunBudget budget{.iterations = options.max_iterations, .max_bytes = options.max_run_bytes};
    TextHeap text(*options.pool, options.max_run_bytes);
    const TextHeap::Scope scope(text);
    ShapeSink sink(*options.pool);
    PlanCache::Lease first = plans.acquire(shapes, "profile", [&] {
      PlanNotes notes;
      std::shared_ptr<const Plan> plan =
          model.compile_for(facts, &notes, options.precision, *model.packed_, environment.threads);
      profile.add(plan, std::move(notes));
      return plan;
    });
    model.file_.files.guarded(
        [&] { run_stages(model.file_.graph, plans, std::move(first), inputs, sink, environment, budget); });
    return std::move(sink.outputs);
  }

  /// The plan for so many threads, as they would run it: of a few runs the one that took least.
  Scaling rehearse(Nanos synchronization) {
    constexpr int kRuns = 3;
    Scaling out{.threads = environment.threads};
    Nanos least = 0;
    for (int n = -1; n < kRuns; ++n) {
      const Rehearsal rehearsal(environment.threads);
      (void)run();
      const Nanos all = profile.so_far();
      profile.end_run(n >= 0);
      if (n < 0 || (n > 0 && all >= least)) continue;
      least = all;
      out.synchronizations = rehearsal.synchronizations();
      const auto alone = static_cast<double>(std::max<Nanos>(all, 1));
      const auto serial = static_cast<double>(all - rehearsal.alone());
      const auto waits = static_cast<double>(out.synchronizations * synchronization);
      out.serial = serial / alone;
      out.speedup = alone / std::max(1.0, serial + static_cast<double>(rehearsal.together()) + waits);
    }
    return out;
  }

  Model& model;
  const std::span<const Tensor> inputs;
  RunProfile profile;
  SubgraphTable subgraphs;
  PlanCache plans;
  RunEnvironment environment;
  std::vector<Shape> shapes;
  std::vector<InputFacts> facts;
};

Explained Model::profile(std::span<const Tensor> inputs, int64_t runs) {
  Explained out;
  {
    ProfiledRuns measured(*this, inputs, options_.threads);
    const RunProfile& profile = measured.profile;
    for (const InputFacts& in : measured.facts) out.inputs.push_back({in.dtype, in.shape});
    // What a first run brings into caches and into being is not the model's time.
    for (int64_t run = -1; run < runs; ++run) {
      out.outputs = measured.run();
      measured.profile.end_run(run >= 0);
    }
    std::ranges::sort(out.outputs, {}, &ExplainedOutput::output);
    out.nodes = profile.nodes();
    for (const ProfiledNode& node : out.nodes) {
      out.estimated_nanos += node.note.nanos * static_cast<double>(node.times_run);
    }
    out.runs = runs;
    out.threads = profile.threads();
    out.arena_bytes = profile.arena_bytes();
    out.weight_bytes = profile.weight_bytes();
  }
  if (options_.device->kind() != DeviceKind::kCpu) return out;  // its steps are not cut for threads
  out.synchronization = synchronization_nanos();
  for (const int threads : {4, 16, 64}) {
    try {
      out.scaling.push_back(ProfiledRuns(*this, inputs, threads).rehearse(out.synchronization));
    } catch (const Error& error) {
      if (error.reason() != Reason::kTooLarge) throw;
      break;  // scratch for so many threads is more than a run may take
    }
  }
  return out;
}

}  // namespace inferkit
