#include "engine/run/program.h"

#include <algorithm>

#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/compile/plan_limits.h"
#include "engine/plan/draw_stream.h"
#include "engine/plan/text_heap.h"
#include "engine/run/run_lists.h"
#include "engine/run/run_profile.h"
#include "engine/run/run_values.h"
#include "graph/text_tensor.h"
#include "graph/topological_sort.h"
#include "platform/float_environment.h"
#include "platform/run_control.h"
#include "platform/stoppable.h"
#include "platform/thread_pool.h"

namespace inferkit {
namespace {

/// Below this a run stays on its own thread: a fork and join costs microseconds.
constexpr int64_t kParallelNanos = 20'000;
constexpr size_t kMaxIdleSessions = 16;
/// About what a plan takes that is only kept for a run.
constexpr size_t kPlanBytes = size_t{16} << 10;

int64_t compile_nanos(const Graph& graph) {
  constexpr int64_t kPerPlan = 20'000, kPerNode = 4'000;
  return kPerPlan + kPerNode * static_cast<int64_t>(graph.nodes.size());
}

/// Memory of a tensor between plans, counted while it lives.
struct Held {
  Held(Buffer memory, size_t size, std::shared_ptr<size_t> count)
      : buffer(std::move(memory)), bytes(size), counter(std::move(count)) {
    *counter += bytes;
  }
  ~Held() { *counter -= bytes; }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

  Buffer buffer;
  const size_t bytes;
  const std::shared_ptr<size_t> counter;
};

Tensor pool_tensor(BufferPool& pool, const RunBudget& budget, DType dtype, const Shape& shape, void** data) {
  // A loop may collect any number of empty ones: what keeps a tensor counts too.
  constexpr size_t kOverhead = 256;
  const size_t bytes = std::max(value_bytes(dtype, shape), kOverhead);
  if (bytes > budget.max_bytes || *budget.held > budget.max_bytes - bytes) {
    throw PlanTooLarge(cat("a value of shape ", shape.str(), " takes ", bytes >> 20, " MiB, and the run already holds ",
                           *budget.held >> 20, " MiB; one run may take at most ", budget.max_bytes >> 20,
                           " MiB: to allow more, raise max_run_bytes of Model.load"));
  }
  auto held = std::make_shared<Held>(pool.acquire(bytes, "between plans"), bytes, budget.held);
  *data = held->buffer.data();
  return {dtype, shape, *data, held};
}

/// Throws Stopped where the run is to stop: then parts were left out.
void copy_value(void* to, const Tensor& value) {
  if (value.bytes() == 0) return;
  copy_in_blocks(to, value.data, value.bytes());
  RunControl::check();
}

/// What tells a value from any other of its type and shape.
void append_value(std::string& key, const Tensor& value) {
  if (value.dtype != DType::kString) {
    key.append(static_cast<const char*>(value.data), value.bytes());
    return;
  }
  for (const std::string_view text : strings_of(value.view())) key.append(cat(text.size(), ":")).append(text);
}

/// What the graph is at fault for shows at load; this is what the values of this run lead to.
[[noreturn]] void rethrow_for_run(const Error& error, const std::string& where) {
  const std::string message = cat(where, error.what());
  if (dynamic_cast<const PlanTooLarge*>(&error)) throw Error(ErrorCode::kValidation, Reason::kTooLarge, message);
  throw Error(ErrorCode::kInference, message);
}

/// compile() for a run: `options` without what the environment says.
std::shared_ptr<const Plan> compile_in(const RunEnvironment& environment, const Graph& graph,
                                       std::span<const InputFacts> inputs, CompileOptions options) {
  options.device = environment.device;
  options.precision = environment.precision;
  options.fallback = environment.fallback;
  options.lacking = environment.lacking;
  options.threads = environment.threads;
  options.files = environment.files;
  if (!environment.profile) return compile(graph, inputs, *environment.cache, options);
  PlanNotes notes;
  options.notes = &notes;
  std::shared_ptr<const Plan> plan = compile(graph, inputs, *environment.cache, options);
  environment.profile->add(plan, std::move(notes));
  return plan;
}

/// What a profile says of a node that runs on values.
NodeNote note_on_values(const Node& node, const Graph& graph, std::span<const TensorFacts* const> inputs,
                        std::span<const Tensor> results) {
  const auto name_of = [&](ValueId id) { return graph.values[static_cast<size_t>(id)].name; };
  NodeNote note;
  note.op = node.domain.empty() ? node.op_type : node.domain + "." + node.op_type;
  note.name = node.name;
  note.origins = node.origins();
  note.steps = 1;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i] || inputs[i]->constant->list) continue;
    note.inputs.push_back({name_of(node.inputs[i]), inputs[i]->dtype, inputs[i]->shape});
    note.read_bytes += inputs[i]->constant->bytes();
  }
  for (size_t i = 0; i < node.outputs.size() && i < results.size(); ++i) {
    if (node.outputs[i] == kNoValue || results[i].list) continue;
    note.outputs.push_back({name_of(node.outputs[i]), results[i].dtype, results[i].shape});
    note.written_bytes += results[i].bytes();
  }
  return note;
}

/// Collects outputs as tensors of the pool.
class TensorSink final : public RunSink {
 public:
  TensorSink(BufferPool& pool, const RunBudget& budget, size_t count) : tensors(count), pool_(pool), budget_(budget) {}
  void* allocate(size_t index, DType dtype, const Shape& shape) override {
    void* data = nullptr;
    tensors[index] = pool_tensor(pool_, budget_, dtype, shape, &data);
    return data;
  }
  void give(size_t index, const Tensor& list) override { tensors[index] = list; }
  std::vector<Tensor> tensors;

 private:
  BufferPool& pool_;
  const RunBudget& budget_;
};

/// One run: the values that are known so far, by their ids.
class StagedRun final {
 public:
  StagedRun(PlanCache& plans, RunSink& sink, const RunEnvironment& environment, RunBudget& budget, bool values_vary)
      : plans_(plans), sink_(sink), environment_(environment), budget_(budget), values_vary_(values_vary) {}

  void run(const Graph& graph, PlanCache::Lease first, std::span<const Tensor> inputs) {
    std::vector<ValueId> tensors;  // what is in a sequence is looked at by what runs on values
    for (size_t i = 0; i < inputs.size(); ++i) {
      values_.put(graph.inputs[i], inputs[i], !values_vary_ && !inputs[i].list);  // a body's are the outer run's
      if (!inputs[i].list) tensors.push_back(graph.inputs[i]);
    }
    std::shared_ptr<const Continuation> next = run_plan(first, tensors);
    while (next) {
      for (const Node& node : next->dynamic) run_node(node, *next);
      keep_text_of(next);
      for (const PlanResult& result : next->computed) deliver(result);
      if (next->ends()) return;
      const std::vector<ValueId> in = inputs_of(*next);
      const PlanCache::Lease lease = plan_after(*next, in);
      std::shared_ptr<const Continuation> after = run_plan(lease, in);
      next = std::move(after);
    }
  }

 private:
  class NodeRun;

  /// Before a value decides something: a copy takes the place of the caller's memory, which others may write.
  void settle(ValueId id) {
    if (!values_.is_foreign(id)) return;
    const Tensor theirs = values_[id];
    void* data = nullptr;
    Tensor ours = pool_tensor(*environment_.pool, budget_, theirs.dtype, theirs.shape, &data);
    copy_value(data, theirs);
    values_.put(id, std::move(ours));
  }
  /// Strings that its nodes gave may show its constants.
  void keep_text_of(const std::shared_ptr<const Continuation>& next) const {
    for (const Node& node : next->dynamic) {
      for (const ValueId id : node.outputs) {
        if (id == kNoValue || !values_.has(id) || values_[id].dtype != DType::kString) continue;
        return TextHeap::current().keep(next, kPlanBytes);
      }
    }
  }
  const Tensor& get(ValueId id, const Graph& graph) const {
    if (values_.has(id)) return values_[id];
    const Tensor* constant = graph.constant(id);
    if (constant) return *constant;
    throw Error(ErrorCode::kModel, cat("the value '", graph.values[static_cast<size_t>(id)].name, "' is not there"));
  }

  std::shared_ptr<const Continuation> run_plan(const PlanCache::Lease& lease, std::span<const ValueId> inputs) {
    const Plan& plan = lease.plan();
    RunControl::check();
    budget_.spend(plan.estimated_nanos);
    std::vector<const void*> in;
    for (const ValueId id : inputs) in.push_back(values_[id].data);
    std::vector<void*> out(plan.results.size());
    for (size_t i = 0; i < out.size(); ++i) {
      const auto& [dtype, shape] = plan.outputs[i];
      const PlanResult& result = plan.results[i];
      Tensor tensor;
      if (result.output >= 0) {
        out[i] = sink_.allocate(static_cast<size_t>(result.output), dtype, shape);
        tensor = {dtype, shape, out[i], nullptr};
      } else {
        tensor = pool_tensor(*environment_.pool, budget_, dtype, shape, &out[i]);
      }
      values_.put(result.value, std::move(tensor));
    }
    const ExecContext context = exec_context_for(plan, environment_.threads);
    if (environment_.profile) {
      environment_.profile->run(plan, in, out, context);
    } else {
      lease.session().run(in, out, context);
    }
    const bool text = std::ranges::any_of(plan.outputs, [](const Port& port) { return port.dtype == DType::kString; });
    if (text) TextHeap::current().keep(lease.shared_plan(), kPlanBytes);  // they may show its constants
    return plan.next;
  }

  /// The inputs of the plan that follows: what is in the sequences that it is made for is put beside them.
  std::vector<ValueId> inputs_of(const Continuation& next) {
    for (const size_t i : next.known) settle(next.rest.inputs[i]);
    std::vector<ValueId> out;
    for (auto& [id, item] : plan_inputs(next, values_)) {
      out.push_back(id);
      if (item) values_.put(id, *item);
    }
    return out;
  }

  PlanCache::Lease plan_after(const Continuation& next, std::span<const ValueId> inputs) {
    std::vector<Shape> shapes;
    std::string key(reinterpret_cast<const char*>(&next.serial), sizeof(next.serial));
    for (const ValueId id : inputs) {
      const Tensor& value = values_[id];
      shapes.push_back(value.shape);
      key.push_back(static_cast<char>(value.dtype));
    }
    key += lists_key(next, values_);  // first: then all that follows has one meaning
    for (const size_t i : next.known) {
      const Tensor& value = values_[next.rest.inputs[i]];
      if (!value.list) append_value(key, value);
    }
    return plans_.acquire(shapes, key, [&] { return compile_after(next); });
  }

  std::shared_ptr<const Plan> compile_after(const Continuation& next) {
    budget_.spend(compile_nanos(next.rest));
    std::vector<InputFacts> facts;
    for (const ValueId id : next.rest.inputs) {
      const Tensor& value = values_[id];
      facts.push_back({value.dtype, value.shape, nullptr, values_.is_foreign(id), value.list != nullptr});
    }
    std::vector<Tensor> known;
    known.reserve(next.known.size());
    for (const size_t i : next.known) {
      const Tensor& value = values_[next.rest.inputs[i]];
      if (value.list) {
        facts[i].list = list_facts(*value.list);
        continue;
      }
      known.push_back(copied(value.view()));
      RunControl::check();
      facts[i].value = &known.back();
    }
    try {
      return compile_in(environment_, next.rest, facts,
                        {.continuation = &next, .values_vary = values_vary_, .max_run_bytes = budget_.max_bytes});
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kModel) throw;
      rethrow_for_run(error, "the model cannot run on the values of this input: ");
    }
  }

  void run_node(const Node& node, const Continuation& next);

  void deliver(const PlanResult& result) {
    const Tensor& value = values_[result.value];
    if (value.list) return sink_.give(static_cast<size_t>(result.output), value);
    void* to = sink_.allocate(static_cast<size_t>(result.output), value.dtype, value.shape);
    copy_value(to, value);
  }

  PlanCache& plans_;
  RunSink& sink_;
  const RunEnvironment& environment_;
  RunBudget& budget_;
  const bool values_vary_;
  RunValues values_;
};

/// What a dynamic node sees of the run.
class StagedRun::NodeRun final : public DynamicContext {
 public:
  NodeRun(const StagedRun& run, const Graph& graph) : run_(run), graph_(graph) {}

  std::vector<Tensor> run_subgraph(const Graph& subgraph, std::span<const Tensor> inputs) override {
    Subgraph& body = run_.environment_.subgraphs->of(subgraph);
    std::vector<Tensor> all(inputs.begin(), inputs.end());
    for (const Capture& c : subgraph.captures) all.push_back(run_.get(c.outer, graph_));
    const DrawStream::Scope scope(DrawStream::inside(bodies_++));
    return body.run(all, run_.environment_, run_.budget_);
  }
  Tensor allocate(DType dtype, const Shape& shape, void** data) override {
    return pool_tensor(*run_.environment_.pool, run_.budget_, dtype, shape, data);
  }
  size_t max_bytes() const override { return run_.budget_.max_bytes; }
  void count_iteration() override {
    if (run_.budget_.iterations-- > 0) return;
    throw Error(ErrorCode::kInference,
                "the loops of this run make too many iterations: to allow more, raise max_iterations of Model.load");
  }
  void spend(int64_t nanos) override { run_.budget_.spend(nanos); }

 private:
  const StagedRun& run_;
  const Graph& graph_;
  uint64_t bodies_ = 0;  // that were run
};

void StagedRun::run_node(const Node& node, const Continuation& next) {
  for_each_read(node, [&](ValueId id) { settle(id); });
  std::vector<TensorFacts> facts(node.inputs.size());
  std::vector<const TensorFacts*> in(node.inputs.size(), nullptr);
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    if (node.inputs[i] == kNoValue) continue;
    const Tensor& value = get(node.inputs[i], next.rest);
    facts[i] = {value.dtype, value.shape, &value};
    in[i] = &facts[i];
  }
  std::vector<TensorFacts> out(node.outputs.size());
  const NodeContext context(node, in, out);
  NodeRun run(*this, next.rest);
  RunProfile::NodeScope scope(environment_.profile, node);
  const OpDef* def = OpRegistry::instance().find(node.domain, node.op_type, node.version);
  std::vector<Tensor> results;
  try {
    const FloatEnvironment ours;
    const bool passes = node.op_type == "Identity" && node.domain.empty();  // what it is given, sequences too
    for (size_t i = 0; i < in.size() && !passes && !def->schema.takes_lists; ++i) {
      if (in[i] && in[i]->constant->list) context.wrong(cat("input ", i, " must be a tensor, not a sequence"));
    }
    if (passes) {
      results.push_back(*context.input(0).constant);
    } else {
      results = (def->dynamic ? def->dynamic : run_on_values)(context, run);
    }
    for (const Tensor& result : results) {
      if (def->dynamic || result.dtype != DType::kString) continue;  // who has run.allocate keeps bytes in the heap
      TextHeap::current().keep(result.owner, result.bytes() + text_bytes(strings_of(result.view())));
    }
  } catch (const Stopped&) {
    throw;
  } catch (const Error& error) {
    const bool named = std::string_view(error.what()).find(node.label()) != std::string_view::npos;
    if (error.code() == ErrorCode::kInference && !named) {
      throw Error(error.code(), error.reason(), cat(node.label(), ": ", error.what()));
    }
    if (error.code() != ErrorCode::kModel) throw;
    rethrow_for_run(error, named ? "" : node.label() + ": ");
  }
  scope.note([&] { return note_on_values(node, next.rest, in, results); });
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    if (node.outputs[i] == kNoValue) continue;
    if (i >= results.size()) context.fail(cat("has no output ", i));
    values_.put(node.outputs[i], std::move(results[i]));
  }
}

}  // namespace

void RunBudget::spend(int64_t estimate) {
  if (estimate > nanos) throw Error(ErrorCode::kInference, "the run takes too long");
  nanos -= estimate;
}

ExecContext exec_context_for(const Plan& plan, int threads) {
  if (threads <= 1 || plan.estimated_nanos < kParallelNanos) return {};
  return {&ThreadPool::process(), threads};
}

void run_stages(const Graph& graph, PlanCache& plans, PlanCache::Lease first, std::span<const Tensor> inputs,
                RunSink& sink, const RunEnvironment& environment, RunBudget& budget, bool values_vary) {
  try {
    StagedRun(plans, sink, environment, budget, values_vary).run(graph, std::move(first), inputs);
  } catch (const PlanTooLarge& error) {
    rethrow_for_run(error, "");
  }
}

Subgraph::Subgraph(const Graph& graph, std::shared_ptr<BufferPool> pool, size_t max_plans)
    : graph_(graph),
      // Its plans are all asked for by key: the types of its inputs are only known then.
      plans_(nullptr, std::move(pool), max_plans, kMaxIdleSessions) {
  for (const Capture& c : graph_.captures) graph_.inputs.push_back(c.inner);
  graph_.captures.clear();
}

std::vector<Tensor> Subgraph::run(std::span<const Tensor> inputs, const RunEnvironment& environment,
                                  RunBudget& budget) {
  if (inputs.size() != graph_.inputs.size()) {
    throw Error(ErrorCode::kModel, cat("the subgraph '", graph_.name, "' takes ",
                                       counted(graph_.inputs.size(), "value"), ", not ", inputs.size()));
  }
  std::vector<Shape> shapes;
  std::string key("body");
  for (const Tensor& in : inputs) {
    shapes.push_back(in.shape);
    key.push_back(static_cast<char>(in.dtype));
    key.push_back(in.list ? 'l' : 't');
  }
  TensorSink sink(*environment.pool, budget, graph_.outputs.size());
  PlanCache::Lease lease = plans_.acquire(shapes, key, [&] {
    budget.spend(compile_nanos(graph_));
    std::vector<InputFacts> facts;
    for (const Tensor& in : inputs) {
      facts.push_back({in.dtype, in.shape, nullptr, /*foreign=*/false, in.list != nullptr});
    }
    return compile_in(environment, graph_, facts, {.values_vary = true, .max_run_bytes = budget.max_bytes});
  });
  run_stages(graph_, plans_, std::move(lease), inputs, sink, environment, budget, /*values_vary=*/true);
  return std::move(sink.tensors);
}

void SubgraphTable::add_all(const Graph& graph, const std::shared_ptr<BufferPool>& pool, size_t max_plans) {
  for (const Node& node : stoppable(graph.nodes)) {
    const OpDef* def = OpRegistry::instance().find(node.domain, node.op_type, node.version);
    for (const auto& [name, attribute] : node.attributes) {
      const auto* subgraph = std::get_if<std::shared_ptr<Graph>>(&attribute);
      if (!subgraph) continue;
      // What a node selects becomes part of the graph around it; what it runs itself is here.
      if (def && def->dynamic) {
        subgraphs_.emplace(subgraph->get(), std::make_unique<Subgraph>(**subgraph, pool, max_plans));
      }
      add_all(**subgraph, pool, max_plans);
    }
  }
}

Subgraph& SubgraphTable::of(const Graph& graph) const { return *subgraphs_.at(graph.origin ? graph.origin : &graph); }

void SubgraphTable::lock() {
  for (const auto& [graph, subgraph] : subgraphs_) subgraph->lock();
}

void SubgraphTable::unlock() {
  for (const auto& [graph, subgraph] : subgraphs_) subgraph->unlock();
}

void SubgraphTable::forget_compiling() {
  for (const auto& [graph, subgraph] : subgraphs_) subgraph->forget_compiling();
}

}  // namespace inferkit
