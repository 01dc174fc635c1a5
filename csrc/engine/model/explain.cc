#include "engine/model/explain.h"

#include <algorithm>

#include "engine/compile/plan_limits.h"
#include "engine/model/model.h"
#include "engine/plan/text_heap.h"
#include "engine/run/run_profile.h"
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

/// Holds the outputs of one run, and tells their shapes.
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

}  // namespace

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

Explained Model::profile(std::span<const Tensor> inputs, int64_t runs) {
  if (options_.device->kind() != DeviceKind::kCpu) {
    throw std::invalid_argument(
        "profile() measures models on the CPU; of one on another device, explain() tells the plan");
  }
  // Plans of their own, whose steps look at the clock; the model's stay as they are.
  RunProfile profile(*options_.pool);
  SubgraphTable subgraphs;
  subgraphs.add_all(file_.graph, options_.pool, options_.max_plans);
  PlanCache plans(nullptr, options_.pool, options_.max_plans, 1);
  RunEnvironment environment = this->environment();
  environment.subgraphs = &subgraphs;
  environment.profile = &profile;

  std::vector<Shape> shapes;
  std::vector<InputFacts> facts;
  for (const Tensor& in : inputs) {
    shapes.push_back(in.shape);
    facts.push_back(facts_of(in));
  }
  const auto compile_first = [&] {
    PlanNotes notes;
    std::shared_ptr<const Plan> plan = compile_for(facts, &notes);
    profile.add(plan, std::move(notes));
    return plan;
  };
  Explained out;
  for (const InputFacts& in : facts) out.inputs.push_back({in.dtype, in.shape});
  // What a first run brings into caches and into being is not the model's time.
  for (int64_t run = -1; run < runs; ++run) {
    RunControl::check();
    RunBudget budget{.iterations = options_.max_iterations, .max_bytes = options_.max_run_bytes};
    TextHeap text(*options_.pool, options_.max_run_bytes);
    const TextHeap::Scope scope(text);
    ShapeSink sink(*options_.pool);
    PlanCache::Lease first = plans.acquire(shapes, "profile", compile_first);
    file_.files.guarded([&] { run_stages(file_.graph, plans, std::move(first), inputs, sink, environment, budget); });
    profile.end_run(run >= 0);
    out.outputs = std::move(sink.outputs);
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
  return out;
}

}  // namespace inferkit
