#include "engine/model/explain.h"

#include <algorithm>
#include <numeric>

#include "engine/model/model.h"
#include "engine/plan/text_heap.h"
#include "engine/plan/timed_plan.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

int64_t median(std::vector<int64_t>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

Explained Model::explain(std::span<const Shape> shapes) {
  Explained out;
  out.plan = compile_for(shapes, &out.notes);
  out.threads = exec_context(*out.plan).max_threads;
  return out;
}

Explained Model::profile(std::span<const TensorView> inputs, int64_t runs) {
  if (options_.device->kind() != DeviceKind::kCpu) {
    throw std::invalid_argument(
        "profile() measures models on the CPU; of one on another device, explain() tells the plan");
  }
  std::vector<Shape> shapes;
  std::vector<const void*> in;
  for (const TensorView& view : inputs) {
    shapes.push_back(view.shape);
    in.push_back(view.data);
  }
  Explained out = explain(shapes);
  const Plan& plan = *out.plan;
  std::vector<Buffer> buffers;
  std::vector<void*> targets;
  for (const Port& port : plan.outputs) {
    const size_t bytes = TensorView{port.dtype, port.shape, nullptr}.bytes();
    buffers.push_back(options_.pool->acquire(std::max<size_t>(bytes, 1), "profile"));
    targets.push_back(buffers.back().data());
  }
  std::vector<Nanos> steps(plan.steps.size());
  Session session(timed(out.plan, steps), *options_.pool);
  TextHeap text(*options_.pool, options_.max_run_bytes);
  const TextHeap::Scope scope(text);
  const ExecContext context = exec_context(plan);
  session.run(in, targets, context);  // what a first run brings into caches and into being is not the model's time
  std::vector<std::vector<int64_t>> taken(out.notes.nodes.size());
  for (int64_t run = 0; run < runs; ++run) {
    RunControl::check();
    session.run(in, targets, context);
    for (size_t i = 0; i < taken.size(); ++i) {
      const NodeNote& note = out.notes.nodes[i];
      const auto first = steps.begin() + static_cast<std::ptrdiff_t>(note.first_step);
      taken[i].push_back(std::accumulate(first, first + static_cast<std::ptrdiff_t>(note.steps), int64_t{0}));
    }
  }
  out.runs = runs;
  for (auto& each : taken) out.nanos.push_back(median(each));
  return out;
}

}  // namespace inferkit
