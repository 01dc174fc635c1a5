#include "engine/compile/compile.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>

#include "engine/compile/compiler.h"
#include "graph/topological_sort.h"
#include "platform/float_environment.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

/// Values up to this size are folded when their inputs are known; larger ones are left to the run.
constexpr size_t kFoldBytes = size_t{1} << 20;
/// And no more than this in one plan: a file may ask for any number of them.
constexpr size_t kFoldTotalBytes = size_t{32} << 20;
/// A guess at what follows a plan that leaves something to do.
constexpr int64_t kStageNanos = 200'000;

constexpr double kCopiedPerNano = 10;  // bytes
struct CopyParams {
  size_t bytes;
};
void copy_step(const void* params, std::byte* const* io, const ExecContext&) {
  std::memcpy(io[0], io[1], static_cast<const CopyParams*>(params)->bytes);
}

}  // namespace

void check_arity(const Node& node, const OpSchema& schema) {
  const auto check = [&](size_t count, int least, int most, const char* what) {
    if (count < static_cast<size_t>(least) || count > static_cast<size_t>(most)) {
      throw Error(ErrorCode::kModel, cat(node.label(), ": has ", count, " ", what));
    }
  };
  check(node.inputs.size(), schema.min_inputs, schema.max_inputs, "inputs");
  check(node.outputs.size(), schema.min_outputs, schema.max_outputs, "outputs");
}

class NodeLowering final : public LowerContext {
 public:
  NodeLowering(Compiler& compiler, size_t index, std::span<const TensorFacts* const> in, std::span<TensorFacts> out,
               const OpSchema& schema)
      : LowerContext(compiler.graph().nodes[index], in, out),
        compiler_(compiler),
        index_(index),
        required_inputs_(static_cast<size_t>(schema.min_inputs)),
        required_outputs_(static_cast<size_t>(schema.min_outputs)) {}

  Ref in(size_t i) override {
    if (!has_input(i)) return place(i);
    const DType dtype = input(i).dtype;
    return dtype == DType::kI64 || dtype == DType::kI32 || dtype == DType::kBool ? steady(i) : place(i);
  }
  Ref steady(size_t i) override {
    const Ref ref = place(i);
    return ref.valid() ? Ref{compiler_.steady_slot(ref.id, index_)} : ref;
  }
  Ref out(size_t i) override {
    if (!has_output(i)) return {};
    const ValueId id = node_.outputs[i];
    // What the operator always gives, its steps always write: it has memory even where nobody reads it.
    if (!compiler_.value_needed_[static_cast<size_t>(id)] && i >= required_outputs_) return {};
    return {compiler_.slot_of(id)};
  }
  Ref scratch(size_t bytes) override { return {compiler_.storage_.add({.bytes = bytes})}; }
  Ref constant(const void* data, std::shared_ptr<const void> owner) override {
    compiler_.plan_->owners.push_back(std::move(owner));
    return {compiler_.storage_.add({.kind = Operand::Kind::kConstant, .pointer = data})};
  }
  void alias(size_t o, size_t i) override {
    const Ref target = out(o);
    if (target.valid()) compiler_.storage_.alias(target.id, place(i).id);
  }
  void in_place(size_t o, size_t i) override {
    const Ref target = out(o), source = in(i);
    if (target.valid() && source.valid()) compiler_.storage_.suggest_in_place(target.id, source.id);
  }
  ModelCache& cache() override;

 protected:
  void add_step(StepFn fn, const void* params, size_t bytes, std::span<const Ref> operands, double work) override {
    compiler_.add_step(fn, params, bytes, operands, index_, work);
  }

 private:
  /// Where input i lies.
  Ref place(size_t i) {
    if (has_input(i)) return {compiler_.slot_of(node_.inputs[i])};
    if (i < required_inputs_) fail(cat("input ", i, " is missing"));  // its steps would read it
    return {};
  }

  Compiler& compiler_;
  const size_t index_, required_inputs_, required_outputs_;
};

ModelCache& NodeLowering::cache() {
  // The cache knows a constant by its address, which must not outlive it.
  for (size_t i = 0; i < node_.inputs.size(); ++i) {
    if (has_input(i) && input(i).constant && !compiler_.is_lasting(node_.inputs[i])) return compiler_.transient_;
  }
  return compiler_.cache_;
}

bool Compiler::is_lasting(ValueId id) const {
  const TensorFacts* f = facts(id);
  return f && f->constant && graph().constant(id) == f->constant &&
         !(options_.continuation && options_.continuation->folded.contains(id));
}

std::shared_ptr<const Plan> Compiler::run(const std::map<size_t, size_t>& forced) {
  infer(forced);
  if (!unsupported_.empty()) throw Unsupported(unsupported_);
  mark_needed();
  split();
  lower();
  if (!unsupported_.empty()) throw Unsupported(unsupported_);
  bind_outputs();
  finish();
  return plan_;
}

void Compiler::infer(const std::map<size_t, size_t>& forced) {
  for (const auto& [id, tensor] : graph().constants) {
    facts_[static_cast<size_t>(id)] = TensorFacts{tensor.dtype, tensor.shape, &tensor};
  }
  constexpr int64_t kMaxElements = int64_t{1} << 40;
  for (size_t i = 0; i < graph().inputs.size(); ++i) {
    const auto count = inputs_[i].shape.checked_elements();
    if (!count || *count > kMaxElements) {
      throw Error(ErrorCode::kModel, cat("input '", graph().values[static_cast<size_t>(graph().inputs[i])].name,
                                         "' of shape ", inputs_[i].shape.str(), " is too large"));
    }
    TensorFacts& facts = facts_[static_cast<size_t>(graph().inputs[i])].emplace();
    facts = {inputs_[i].dtype, inputs_[i].shape, nullptr};
    if (inputs_[i].value) {
      constants_.push_back(std::make_shared<Tensor>(*inputs_[i].value));
      facts.constant = constants_.back().get();
    }
  }
  for (size_t n = 0; n < graph().nodes.size();) {
    RunControl::check();
    const auto force = forced.find(n);
    if (force != forced.end()) {
      defer(n++, force->second);
      continue;
    }
    if (reads_deferred(graph().nodes[n])) {
      defer(n++, std::nullopt);
      continue;
    }
    try {
      if (infer_node(n)) ++n;  // else a subgraph took its place
    } catch (const NeedsValue& needs) {
      defer(n++, needs.input());
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kUnsupportedOp) throw;
      unsupported_.push_back(error.what());
      ++n;
    }
  }
}

/// False where it put a subgraph in place of the node.
bool Compiler::infer_node(size_t n) {
  const Node& node = graph().nodes[n];
  const OpDef* def = OpRegistry::instance().find(node.domain, node.op_type, node.version);
  if (!def) {
    throw Error(ErrorCode::kUnsupportedOp, cat(node.label(), ": there is no such operator at opset ", node.version));
  }
  std::vector<const TensorFacts*> in;
  bool all_constant = true;
  for (ValueId id : node.inputs) {
    in.push_back(facts(id));
    if (id == kNoValue) continue;
    if (!in.back()) return true;  // follows from a node that is already on the list of what is not supported
    all_constant &= in.back()->constant != nullptr;
  }
  check_arity(node, def->schema);
  const TensorFacts unset{DType::kF32, Shape{Shape::kFree}, nullptr};
  std::vector<TensorFacts> out(node.outputs.size(), unset);
  InferContext context(node, in, out, constants_);
  if (def->select) {
    replace_by_subgraph(n, def->select(context));
    return false;
  }
  if (!def->schema.infer) throw NeedsValue(0, cat(node.label(), ": only a run can tell the shapes of its outputs"));
  def->schema.infer(context);
  for (size_t i = 0; i < out.size(); ++i) {
    if (out[i].shape == unset.shape) continue;  // the operator has no such output here; mark_needed sees who reads it
    if (node.outputs[i] != kNoValue) facts_[static_cast<size_t>(node.outputs[i])] = out[i];
  }
  const bool already = std::all_of(out.begin(), out.end(), [](const TensorFacts& f) { return f.constant != nullptr; });
  if (fold_ && all_constant && !already) try_fold(node, in);
  return true;
}

bool Compiler::try_fold(const Node& node, std::span<const TensorFacts* const> in) {
  std::vector<const Tensor*> tensors;
  for (const TensorFacts* f : in) tensors.push_back(f ? f->constant : nullptr);
  std::vector<Tensor> values = evaluate_node(
      node, tensors, {.bytes = std::min(kFoldBytes, kFoldTotalBytes - folded_bytes_), .time = &fold_time_});
  if (values.empty()) return false;
  for (size_t i = 0; i < values.size(); ++i) {
    if (node.outputs[i] == kNoValue) continue;
    folded_bytes_ += std::min(values[i].bytes(), kFoldTotalBytes - folded_bytes_);
    constants_.push_back(std::make_shared<Tensor>(std::move(values[i])));
    facts_[static_cast<size_t>(node.outputs[i])]->constant = constants_.back().get();
  }
  return true;
}

/// What is known of a value that the plan must compute.
const TensorFacts& Compiler::known(ValueId id) const {
  const TensorFacts* f = facts(id);
  if (!f) {
    throw Error(ErrorCode::kModel,
                cat("the value '", graph().values[static_cast<size_t>(id)].name, "' is read, but no node computes it"));
  }
  return *f;
}

void Compiler::mark_needed() {
  value_needed_.assign(graph().values.size(), false);
  node_needed_.assign(graph().nodes.size(), false);
  for (ValueId id : graph().outputs) {
    value_needed_[static_cast<size_t>(id)] = true;
    if (waits_[static_cast<size_t>(id)]) continue;
    if (fold_ && known(id).dtype == DType::kString) {
      throw Error(ErrorCode::kUnsupportedOp,
                  cat("output '", graph().values[static_cast<size_t>(id)].name,
                      "' is of strings; let the model give numbers, and name them after it"));
    }
  }
  for (size_t n = graph().nodes.size(); n-- > 0;) {
    const Node& node = graph().nodes[n];
    for (ValueId id : node.outputs) {
      if (id == kNoValue || !value_needed_[static_cast<size_t>(id)]) continue;
      node_needed_[n] = node_needed_[n] || waits_[static_cast<size_t>(id)] || !known(id).constant;
    }
    if (node_needed_[n]) for_each_read(node, [&](ValueId id) { value_needed_[static_cast<size_t>(id)] = true; });
  }
}

void Compiler::lower() {
  value_slot_.assign(graph().values.size(), -1);
  for (size_t i = 0; i < graph().inputs.size(); ++i) {
    value_slot_[static_cast<size_t>(graph().inputs[i])] =
        storage_.add({.kind = Operand::Kind::kInput, .index = static_cast<uint32_t>(i)});
  }
  for (size_t n = 0; n < graph().nodes.size(); ++n) {
    const Node& node = graph().nodes[n];
    RunControl::check();
    plan_->labels.push_back(node.label());
    if (!node_needed_[n]) continue;
    std::vector<const TensorFacts*> in;
    for (ValueId id : node.inputs) in.push_back(facts(id));
    std::vector<TensorFacts> out;
    for (ValueId id : node.outputs) {
      out.push_back(facts(id) ? *facts(id) : TensorFacts{});
      const bool made = id != kNoValue && value_needed_[static_cast<size_t>(id)] && !out.back().constant;
      if (made) run_bytes_.add_value(node, out.back().dtype, out.back().shape);
    }
    // Nothing to compute, whatever the other dimensions are: a loop over them might not end.
    const auto is_empty = [](const TensorFacts& f) { return f.shape.elements() == 0; };
    if (std::all_of(out.begin(), out.end(), is_empty)) continue;
    const OpDef* def = OpRegistry::instance().find(node.domain, node.op_type, node.version);
    NodeLowering context(*this, n, in, out, def->schema);
    try {
      if (!def->lower) context.unsupported("it has no lowering");
      def->lower(context);
    } catch (const NeedsValue& needs) {
      throw Restart{n, needs.input()};
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kUnsupportedOp) throw;
      unsupported_.push_back(error.what());
    }
  }
}

int32_t Compiler::constant_slot(const Tensor& tensor) {
  if (tensor.owner) plan_->owners.push_back(tensor.owner);
  return storage_.add({.kind = Operand::Kind::kConstant, .pointer = tensor.data, .bytes = tensor.bytes()});
}

int32_t Compiler::slot_of(ValueId id) {
  int32_t& slot = value_slot_[static_cast<size_t>(id)];
  if (slot >= 0) return slot;
  const TensorFacts& f = *facts(id);
  slot =
      f.constant ? constant_slot(*f.constant) : storage_.add({.bytes = TensorView{f.dtype, f.shape, nullptr}.bytes()});
  return slot;
}

/// `slot`, or where it is the caller's memory a copy of that which is made once a run, before whoever asks first.
int32_t Compiler::steady_slot(int32_t slot, size_t node) {
  const int32_t root = storage_.root(slot);
  storage_[root].steady = true;  // never to become an output, which is the caller's too
  if (storage_[root].kind != Operand::Kind::kInput) return slot;
  const InputFacts& input = inputs_[storage_[root].index];
  const size_t bytes = TensorView{input.dtype, input.shape, nullptr}.bytes();
  if (!input.foreign || bytes == 0) return slot;
  const auto [it, fresh] = snapshots_.try_emplace(root, -1);
  if (fresh) {
    it->second = storage_.add({.bytes = bytes});
    const Ref refs[] = {{it->second}, {root}};
    const CopyParams params{bytes};
    add_step(copy_step, &params, sizeof(params), refs, node, static_cast<double>(bytes) / kCopiedPerNano);
  }
  return it->second;
}

void Compiler::add_step(StepFn fn, const void* params, size_t bytes, std::span<const Ref> operands, size_t node,
                        double work) {
  auto copy = std::make_unique<std::byte[]>(bytes);
  std::memcpy(copy.get(), params, bytes);
  const int index = static_cast<int>(plan_->steps.size());
  for (Ref ref : operands) {
    if (ref.valid()) storage_.touch(ref.id, index);
  }
  plan_->steps.push_back({fn, copy.get(), 0, static_cast<uint32_t>(node)});
  plan_->params.push_back(std::move(copy));
  step_refs_.emplace_back(operands.begin(), operands.end());
  work_ += work;
}

void Compiler::bind_outputs() {
  for (size_t i = 0; i < plan_->results.size(); ++i) {
    const ValueId id = plan_->results[i].value;
    const TensorFacts& f = known(id);
    plan_->outputs.push_back({f.dtype, f.shape});
    const int32_t source = slot_of(id);
    Slot& root = storage_[storage_.root(source)];
    const size_t bytes = TensorView{f.dtype, f.shape, nullptr}.bytes();
    if (root.kind == Operand::Kind::kArena && root.first >= 0 && !root.steady) {
      root.kind = Operand::Kind::kOutput;
      root.index = static_cast<uint32_t>(i);
      continue;
    }
    // A constant, an input, memory that already is another output, or that must stay the run's own.
    const int32_t target = storage_.add({.kind = Operand::Kind::kOutput, .index = static_cast<uint32_t>(i)});
    const Ref refs[] = {{target}, {source}};
    const CopyParams params{bytes};
    plan_->labels.push_back(cat("output '", graph().values[static_cast<size_t>(id)].name, "'"));
    add_step(copy_step, &params, sizeof(params), refs, plan_->labels.size() - 1,
             static_cast<double>(bytes) / kCopiedPerNano);
  }
}

void Compiler::finish() {
  for (const InputFacts& in : inputs_) plan_->inputs.push_back({in.dtype, in.shape});
  plan_->arena_bytes = storage_.place();
  size_t output_bytes = 0;
  for (const Port& port : plan_->outputs) output_bytes += TensorView{port.dtype, port.shape, nullptr}.bytes();
  run_bytes_.check_total(plan_->arena_bytes, output_bytes);
  for (size_t s = 0; s < step_refs_.size(); ++s) {
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
  constexpr double kNanosPerStep = 15, kMostNanos = 1e17;  // years, and no overflow where some are added
  const double nanos = work_ + kNanosPerStep * static_cast<double>(plan_->steps.size());
  plan_->estimated_nanos = static_cast<int64_t>(std::clamp(nanos, 0.0, kMostNanos));
  if (plan_->next) plan_->estimated_nanos += kStageNanos;
  for (auto& constant : constants_) plan_->owners.push_back(std::move(constant));
}

namespace {

/// Gives a value to each output that the operator always has and the node leaves out.
void name_required_outputs(Node& node, Graph& graph) {
  const OpDef* def = OpRegistry::instance().find(node.domain, node.op_type, node.version);
  if (!def) return;
  const auto required = std::min(node.outputs.size(), static_cast<size_t>(def->schema.min_outputs));
  for (size_t i = 0; i < required; ++i) {
    if (node.outputs[i] == kNoValue) node.outputs[i] = graph.add_value("");
  }
}

/// Calls visit(Node) for every node, those of subgraphs included.
template <class Visit>
void for_each_node(const Graph& graph, const Visit& visit) {
  for (const Node& node : graph.nodes) {
    visit(node);
    for (const auto& [name, attribute] : node.attributes) {
      if (const auto* subgraph = std::get_if<std::shared_ptr<Graph>>(&attribute)) for_each_node(**subgraph, visit);
    }
  }
}

void collect_missing(const Graph& graph, std::map<std::string, int>& counts) {
  for_each_node(graph, [&](const Node& node) {
    if (OpRegistry::instance().find(node.domain, node.op_type, node.version)) return;
    const std::string domain = node.domain.empty() ? "" : node.domain + ".";
    ++counts[cat("operator ", domain, node.op_type, " (opset ", node.version, ")")];
  });
}

}  // namespace

std::vector<std::string> missing_operators(const Graph& graph) {
  std::map<std::string, int> counts;
  collect_missing(graph, counts);
  std::vector<std::string> lines;
  for (const auto& [what, count] : counts) lines.push_back(cat(what, ", ", count, count == 1 ? " node" : " nodes"));
  return lines;
}

void check_arities(const Graph& graph) {
  for_each_node(graph, [](const Node& node) {
    if (const OpDef* def = OpRegistry::instance().find(node.domain, node.op_type, node.version)) {
      check_arity(node, def->schema);
    }
  });
}

void name_required_outputs(Graph& graph) {
  for (Node& node : graph.nodes) {
    name_required_outputs(node, graph);
    for (auto& [name, attribute] : node.attributes) {
      if (auto* subgraph = std::get_if<std::shared_ptr<Graph>>(&attribute)) name_required_outputs(**subgraph);
    }
  }
}

namespace {

std::string list_of(std::span<const std::string> lines) {
  std::string message = cat("the model needs what inferkit does not have (", lines.size(), "):");
  for (const std::string& line : lines) message += "\n  - " + line;
  return message;
}

}  // namespace

Unsupported::Unsupported(std::vector<std::string> lines)
    : Error(ErrorCode::kUnsupportedOp, list_of(lines)), lines_(std::move(lines)) {}

namespace {

std::shared_ptr<const Plan> compile_as(const Graph& graph, std::span<const InputFacts> inputs, ModelCache& cache,
                                       const CompileOptions& options, bool fold) {
  const FloatEnvironment ours;  // what lowerings prepare and fold is arithmetic, too
  std::map<size_t, size_t> forced;
  for (;;) {
    try {
      return Compiler(graph, inputs, cache, options, fold).run(forced);
    } catch (const Compiler::Restart& restart) {
      forced[restart.node] = restart.input;
    }
  }
}

}  // namespace

std::shared_ptr<const Plan> compile(const Graph& graph, std::span<const InputFacts> inputs, ModelCache& cache,
                                    const CompileOptions& options) {
  return compile_as(graph, inputs, cache, options, /*fold=*/true);
}

namespace {

std::vector<Tensor> evaluate_within(const Node& node, std::span<const Tensor* const> inputs,
                                    const EvaluateLimits& limits) {
  if (!OpRegistry::instance().find(node.domain, node.op_type, node.version)) return {};
  Graph graph;
  Node copy = node;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i]) continue;
    copy.inputs[i] = graph.add_value("");
    graph.constants.emplace(copy.inputs[i], *inputs[i]);
  }
  for (ValueId& id : copy.outputs) {
    if (id == kNoValue) continue;
    id = graph.add_value("");
    graph.outputs.push_back(id);
  }
  name_required_outputs(copy, graph);
  graph.nodes.push_back(std::move(copy));
  TransientCache cache;
  const auto plan = compile_as(graph, {}, cache, {.max_run_bytes = limits.run_bytes}, /*fold=*/false);
  if (plan->next) return {};
  size_t total = 0;
  for (const Port& port : plan->outputs) total += TensorView{port.dtype, port.shape, nullptr}.bytes();
  std::vector<Tensor> out(node.outputs.size());
  std::vector<void*> pointers;
  if (plan->steps.size() == 1 && plan->steps[0].fn == copy_step && plan->outputs.size() == 1) {
    // A view of a constant (Reshape of a weight): share the bytes.
    const auto& source = plan->operands[plan->steps[0].first_operand + 1];
    for (const Tensor* input : inputs) {
      if (input && source.kind == Operand::Kind::kConstant && input->data == source.pointer) {
        for (size_t i = 0; i < out.size(); ++i) {
          if (node.outputs[i] == kNoValue) continue;
          out[i] = {plan->outputs[0].dtype, plan->outputs[0].shape, input->data, input->owner};
        }
        return out;
      }
    }
  }
  if (total > limits.bytes || (limits.time && !limits.time->take(plan->estimated_nanos))) return {};
  if (limits.before_run) limits.before_run(plan->estimated_nanos);
  size_t port = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    if (node.outputs[i] == kNoValue) continue;
    void* data = nullptr;
    out[i] = make_tensor(plan->outputs[port].dtype, plan->outputs[port].shape, &data);
    pointers.push_back(data);
    ++port;
  }
  Session session(plan, *BufferPool::process_default());
  try {
    session.run({}, pointers, {});
  } catch (const Stopped&) {
    throw;
  } catch (const Error& error) {
    // Constants on which the operation is impossible (an index out of range): the graph is wrong, not a run.
    if (error.code() != ErrorCode::kInference) throw;
    throw Error(ErrorCode::kModel, error.what());
  }
  return out;
}

}  // namespace

std::vector<Tensor> evaluate_node(const Node& node, std::span<const Tensor* const> inputs,
                                  const EvaluateLimits& limits) {
  if (!limits.time) return evaluate_within(node, inputs, limits);
  std::vector<Tensor> out;
  limits.time->spend([&] { out = evaluate_within(node, inputs, limits); });
  return out;
}

std::string weight_key(const Tensor& constant, const std::string& kind) {
  return cat(reinterpret_cast<uintptr_t>(constant.data), " ", kind, " ", dtype_name(constant.dtype), " ",
             constant.shape.str());
}

}  // namespace inferkit
