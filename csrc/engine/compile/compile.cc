#include "engine/compile/compile.h"

#include <algorithm>
#include <map>
#include <optional>

#include "engine/compile/compiler.h"
#include "graph/topological_sort.h"
#include "platform/float_environment.h"
#include "platform/stoppable.h"

namespace inferkit {
namespace {

/// A guess at what follows a plan that leaves something to do.
constexpr int64_t kStageNanos = 200'000;

}  // namespace

std::shared_ptr<const Plan> Compiler::run(const std::map<size_t, size_t>& forced) {
  infer(forced);
  if (!unsupported_.empty()) throw Unsupported(unsupported_);
  mark_needed();
  split();
  place();
  place_layouts();
  fuse_attention();
  join_layers();
  lower();
  if (!unsupported_.empty()) throw Unsupported(unsupported_);
  bind_outputs();
  finish();
  return plan_;
}

void Compiler::mark_needed() {
  value_needed_.assign(graph().values.size(), false);
  node_needed_.assign(graph().nodes.size(), false);
  const auto need = [&](ValueId id) {
    value_needed_[static_cast<size_t>(id)] = true;
    const auto list = lists_.find(id);
    if (list == lists_.end()) return;
    for (const ValueId item : list->second.items) value_needed_[static_cast<size_t>(item)] = true;
  };
  for (ValueId id : graph().outputs) need(id);
  const size_t count = graph().nodes.size();
  for (const size_t i : stoppable_indices(count)) {
    const size_t n = count - 1 - i;
    const Node& node = graph().nodes[n];
    for (ValueId id : node.outputs) {
      if (id == kNoValue || !value_needed_[static_cast<size_t>(id)] || lists_.contains(id)) continue;
      node_needed_[n] = node_needed_[n] || waits_[static_cast<size_t>(id)] || !known(id).constant;
    }
    if (node_needed_[n]) for_each_read(node, need);
  }
}

void Compiler::finish() {
  const auto bytes_of = [](const Port& port) { return TensorView{port.dtype, port.shape, nullptr}.bytes(); };
  for (const InputFacts& in : inputs_) {
    plan_->inputs.push_back({in.dtype, in.shape});
    plan_->input_bytes.push_back(bytes_of(plan_->inputs.back()));
  }
  plan_->device = options_.device;
  if (options_.device->kind() == DeviceKind::kCuda) plan_->answer = OpRegistry::instance().answer();
  if (options_.text && std::ranges::any_of(facts_, [](const auto& f) { return f && f->dtype == DType::kString; })) {
    options_.text->store(true, std::memory_order_relaxed);
  }
  plan_->arena_bytes = storage_.place(/*on_host=*/false);
  plan_->host_arena_bytes = storage_.place(/*on_host=*/true);
  size_t output_bytes = 0;
  for (const Port& port : plan_->outputs) {
    plan_->output_bytes.push_back(bytes_of(port));
    output_bytes += plan_->output_bytes.back();
  }
  run_bytes_.check_total(plan_->arena_bytes + plan_->host_arena_bytes, output_bytes);
  for (const size_t s : stoppable_indices(step_refs_.size())) {
    plan_->steps[s].first_operand = static_cast<uint32_t>(plan_->operands.size());
    for (Ref ref : step_refs_[s]) {
      const Operand operand = ref.valid() ? storage_.operand(ref.id) : Operand{};
      const auto slot = static_cast<uint32_t>(plan_->operands.size());
      if (operand.kind == Operand::Kind::kInput) plan_->input_slots.push_back(slot);
      if (operand.kind == Operand::Kind::kOutput) plan_->output_slots.push_back(slot);
      plan_->operands.push_back(operand);
      if (options_.files && operand.kind == Operand::Kind::kConstant) {
        if (const auto* file = options_.files->find(operand.pointer)) plan_->files.add(*file);
      }
    }
  }
  constexpr double kMostNanos = 1e17;  // years, and no overflow where some are added
  double nanos = work_;
  bool on_host = true;
  for (const Step& step : plan_->steps) {
    nanos += nanos_per_step(step.on_host);
    if (options_.device->kind() == DeviceKind::kCuda && on_host && !step.on_host) nanos += kNanosPerGraph;
    on_host = step.on_host;
  }
  plan_->estimated_nanos = static_cast<int64_t>(std::clamp(nanos, 0.0, kMostNanos));
  if (plan_->next) plan_->estimated_nanos += kStageNanos;
  for (auto& constant : constants_) plan_->owners.push_back(std::move(constant));
  if (options_.notes) note_kernels();
}

namespace {

std::string list_of(std::span<const std::string> lines) {
  std::string message = cat("the model needs what inferkit does not support (", lines.size(), "):");
  for (const std::string& line : lines) message += "\n  - " + line;
  return message;
}

}  // namespace

Unsupported::Unsupported(std::vector<std::string> lines)
    : Error(ErrorCode::kUnsupportedOp, list_of(lines)), lines_(std::move(lines)) {}

std::shared_ptr<const Plan> compile_as(const Graph& graph, std::span<const InputFacts> inputs, ModelCache& cache,
                                       const CompileOptions& options, bool fold) {
  const FloatEnvironment ours;  // what lowerings prepare and fold is arithmetic, too
  std::optional<FlatGraph> flat;
  if (std::ranges::any_of(inputs, &InputFacts::is_list)) flat.emplace(graph, inputs);
  std::map<size_t, size_t> forced;
  for (;;) {
    try {
      if (options.notes) *options.notes = {};
      if (flat) return Compiler(flat->graph, flat->inputs, cache, options, fold, flat->lists, flat->held).run(forced);
      return Compiler(graph, inputs, cache, options, fold).run(forced);
    } catch (const Compiler::Restart& restart) {
      forced[restart.node] = restart.input;
    }
  }
}

std::vector<std::optional<Shape>> infer_outputs(const Graph& graph, std::span<const InputFacts> inputs,
                                                ModelCache& cache, const CompileOptions& options) {
  const FloatEnvironment ours;
  Compiler compiler(graph, inputs, cache, options, /*fold=*/true);
  compiler.infer({});
  std::vector<std::optional<Shape>> out;
  for (const ValueId id : graph.outputs) {
    const TensorFacts* facts = compiler.facts(id);
    out.push_back(facts ? std::optional(facts->shape) : std::nullopt);
  }
  return out;
}

std::shared_ptr<const Plan> compile(const Graph& graph, std::span<const InputFacts> inputs, ModelCache& cache,
                                    const CompileOptions& options) {
  return compile_as(graph, inputs, cache, options, /*fold=*/true);
}

}  // namespace inferkit
