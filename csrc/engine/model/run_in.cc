// A run in another precision than the model's, for Model.compare_precision().
#include "engine/model/model.h"
#include "engine/plan/text_heap.h"
#include "engine/run/keep_text.h"

namespace inferkit {

void Model::run_in(Precision precision, std::span<const Tensor> inputs, OutputSink& sink) {
  PackedWeights packed;  // before what holds plans, which read it
  SubgraphTable subgraphs;
  subgraphs.add_all(file_.graph, options_.pool, options_.max_plans);
  PlanCache plans(nullptr, options_.pool, options_.max_plans, 1);
  RunEnvironment environment = this->environment();
  environment.cache = &packed;
  environment.subgraphs = &subgraphs;
  environment.precision = precision;
  std::vector<Shape> shapes;
  std::vector<InputFacts> facts;
  for (const Tensor& in : inputs) {
    shapes.push_back(in.shape);
    facts.push_back(facts_of(in));
  }
  RunBudget budget{.iterations = options_.max_iterations, .max_bytes = options_.max_run_bytes};
  TextHeap text(*options_.pool, options_.max_run_bytes);
  const TextHeap::Scope scope(text);
  TextSink outputs(sink, file_.graph);
  PlanCache::Lease first =
      plans.acquire(shapes, "run_in", [&] { return compile_for(facts, nullptr, precision, packed); });
  file_.files.guarded([&] { run_stages(file_.graph, plans, std::move(first), inputs, outputs, environment, budget); });
  outputs.keep(options_.max_run_bytes);
}

}  // namespace inferkit
