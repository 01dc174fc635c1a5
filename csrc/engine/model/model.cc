#include "engine/model/model.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "engine/compile/expand.h"
#include "engine/compile/plan_limits.h"
#include "engine/model/check_attributes.h"
#include "engine/model/check_branches.h"
#include "engine/model/model_fork.h"
#include "graph/model_weights.h"
#include "graph/onnx_reader.h"
#include "graph/passes/fold_constants.h"
#include "graph/passes/passes.h"
#include "platform/float_environment.h"
#include "platform/thread_pool.h"

namespace inferkit {
namespace {

/// One folded value may take this much, and all of them together this much and so many times the size of the file.
constexpr size_t kMaxFoldedBytes = size_t{64} << 20;
constexpr size_t kMaxFoldedTotal = size_t{256} << 20, kMaxFoldedRatio = 4;
constexpr size_t kMaxIdleSessions = 16;

/// The first bytes are those of a 1 of this type, but for the types of less than 8 bits and small floats, where they
/// are those of some other number.
uint64_t bits_of_one(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return 0x3f80'0000;
    case DType::kF64:
      return 0x3ff0'0000'0000'0000;
    case DType::kF16:
      return 0x3c00;
    case DType::kBF16:
      return 0x3f80;
    default:
      return 1;
  }
}

/// Bytes of the results that are not those of an input.
size_t fresh_bytes(std::span<const Tensor> results, std::span<const Tensor* const> inputs) {
  size_t bytes = 0;
  for (const Tensor& t : results) {
    const auto same = [&](const Tensor* in) { return in && in->data == t.data; };
    if (std::none_of(inputs.begin(), inputs.end(), same)) bytes += t.bytes();
  }
  return bytes;
}

/// `budget` is what folding may still add to memory, `time` what it may still take.
std::optional<std::vector<Tensor>> evaluate(const Node& node, std::span<const Tensor* const> inputs, size_t& budget,
                                            TimeBudget& time) {
  try {
    auto out = evaluate_node(node, inputs, {.bytes = std::min(kMaxFoldedBytes, budget), .time = &time});
    if (out.empty()) return std::nullopt;
    budget -= std::min(budget, fresh_bytes(out, inputs));
    return out;
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kUnsupportedOp) return std::nullopt;  // reported with all others by probe()
    throw;
  }
}

/// Calls visit(TensorView) for every constant, those of subgraphs and attributes included.
template <class Visit>
void for_each_constant(const Graph& graph, const Visit& visit) {
  for (const auto& [id, tensor] : graph.constants) visit(tensor.view());
  for (const Node& node : graph.nodes) {
    for (const auto& [name, attribute] : node.attributes) {
      if (const auto* tensor = std::get_if<Tensor>(&attribute)) visit(tensor->view());
      if (const auto* body = std::get_if<std::shared_ptr<Graph>>(&attribute)) for_each_constant(**body, visit);
    }
  }
}

}  // namespace

std::shared_ptr<Model> Model::load(const std::string& path, ModelOptions options) {
  ModelFile file = read_onnx(path, options.placement);
  const MappedFiles files = file.files;
  return files.guarded([&] { return std::make_shared<Model>(std::move(file), std::move(options), path); });
}

std::shared_ptr<Model> Model::load_bytes(std::span<const std::byte> bytes, ModelOptions options) {
  return std::make_shared<Model>(read_onnx(bytes), std::move(options), "");
}

Model::Model(ModelFile file, ModelOptions options, std::string path)
    : options_([&] {
        if (options.threads < 0) throw std::invalid_argument("threads must be 0 (all) or more");
        if (options.max_plans == 0) throw std::invalid_argument("max_plans must be at least 1");
        if (options.max_run_bytes == 0) options.max_run_bytes = default_max_run_bytes();
        if (!options.pool) options.pool = BufferPool::process_default();
        return std::move(options);
      }()),
      path_(std::move(path)),
      file_(std::move(file)),
      packed_(std::make_unique<PackedWeights>()),
      plans_([this](std::span<const Shape> shapes) { return compile_for(shapes); }, options_.pool, options_.max_plans,
             kMaxIdleSessions) {
  const FloatEnvironment ours;  // the passes compute new weights
  weights_ = weights_of(file_, path_);
  read_specs();
  lift_constants(file_.graph);
  std::vector<std::string> unsupported = missing_operators(file_.graph);
  check_arities(file_.graph);
  name_required_outputs(file_.graph);
  expand_nodes(file_.graph, unsupported);
  eliminate_dead_nodes(file_.graph);
  check_attributes(file_.graph, unsupported);
  if (!unsupported.empty()) throw Unsupported(unsupported);
  hoist_invariants(file_.graph);
  fuse_quantized(file_.graph);
  size_t budget = kMaxFoldedTotal + kMaxFoldedRatio * file_.file_bytes;
  TimeBudget time(options_.max_load_nanos);
  const auto fold = [&](const Node& node, std::span<const Tensor* const> in) {
    return evaluate(node, in, budget, time);
  };
  fold_constants(file_.graph, fold, kMaxFoldedBytes);
  run_passes(file_.graph);
  fold_constants(file_.graph, fold, kMaxFoldedBytes);
  eliminate_dead_nodes(file_.graph);
  number_nodes(file_.graph);
  subgraphs_.add_all(file_.graph, options_.pool, options_.max_plans);
  probe();
  register_for_fork(this);
}

Model::~Model() { unregister_for_fork(this); }

void Model::lock() {
  plans_.lock();
  subgraphs_.lock();
  packed_->lock();
}

void Model::forget_unfinished() {
  plans_.forget_compiling();
  subgraphs_.forget_compiling();
  packed_->forget_making();
}

void Model::unlock() {
  packed_->unlock();
  subgraphs_.unlock();
  plans_.unlock();
}

void Model::read_specs() {
  const Graph& graph = file_.graph;
  for (ValueId id : graph.inputs) {
    const Value& value = graph.values[static_cast<size_t>(id)];
    if (!value.dtype) throw Error(ErrorCode::kModel, cat("input '", value.name, "' declares no element type"));
    if (!value.shape) {
      throw Error(ErrorCode::kUnsupportedOp,
                  cat("input '", value.name, "' declares no shape; give it one (free dimensions are fine)"));
    }
    if (*value.dtype == DType::kString) {
      throw Error(ErrorCode::kUnsupportedOp,
                  cat("input '", value.name, "' is of strings; encode them as numbers before the model"));
    }
    inputs_.push_back({value.name, *value.dtype, *value.shape});
  }
  if (graph.outputs.empty()) throw Error(ErrorCode::kModel, "the model has no outputs");
  for (ValueId id : graph.outputs) {
    const Value& value = graph.values[static_cast<size_t>(id)];
    outputs_.push_back({value.name, value.dtype.value_or(DType::kF32), value.shape.value_or(Shape{})});
  }
}

/// What a run on zeros gives, where the shapes depend on values: the types and shapes of the outputs alone are kept.
class Model::PortSink final : public OutputSink {
 public:
  PortSink(BufferPool& pool, size_t count) : ports(count), pool_(pool) {}
  void* allocate(size_t index, DType dtype, const Shape& shape) override {
    ports[index] = {dtype, shape};
    buffers_.push_back(pool_.acquire(std::max<size_t>(TensorView{dtype, shape, nullptr}.bytes(), 1), "probe"));
    return buffers_.back().data();
  }
  std::vector<Port> ports;

 private:
  BufferPool& pool_;
  std::vector<Buffer> buffers_;
};

/// The outputs that a plan for these inputs gives; empty where only a run on real values could tell. `staged` becomes
/// true where their shapes may depend on values.
std::vector<Port> Model::probe_outputs(std::span<const InputFacts> facts, RunBudget& budget, TimeBudget& time,
                                       bool& staged) {
  const auto plan = compile(file_.graph, facts, *packed_, {.max_run_bytes = options_.max_run_bytes});
  if (!plan->next) return plan->outputs;
  const bool first = !staged;
  staged = true;
  if (const auto lines = unsupported_in_branches(*plan, file_.graph, facts, *packed_); !lines.empty()) {
    throw Unsupported(lines);
  }
  std::vector<Port> ports = run_on_constants(facts, 0, budget, time);
  if (first) {
    // Zeros select nothing and end loops before they begin: what follows shows with ones. Once, and for its support
    // alone.
    RunBudget once{.iterations = 100, .nanos = options_.max_load_nanos / 4, .max_bytes = options_.max_run_bytes};
    run_on_constants(facts, 1, once, time);
  }
  return ports;
}

/// What a run gives whose inputs are all zeros, or all ones; empty where they are not what the model is for.
std::vector<Port> Model::run_on_constants(std::span<const InputFacts> facts, int value, RunBudget& budget,
                                          TimeBudget& time) {
  constexpr size_t kMaxBytes = size_t{64} << 20;
  std::vector<Shape> shapes;
  std::vector<TensorView> views;
  std::vector<Buffer> values;
  for (const InputFacts& f : facts) {
    const size_t bytes = TensorView{f.dtype, f.shape, nullptr}.bytes();
    if (bytes > kMaxBytes) return {};
    values.push_back(options_.pool->acquire(std::max<size_t>(bytes, 1), "probe"));
    auto* to = static_cast<std::byte*>(values.back().data());
    std::memset(to, 0, bytes);
    const uint64_t one = bits_of_one(f.dtype);
    for (size_t at = 0; value != 0 && at < bytes; at += dtype_size(f.dtype)) {
      std::memcpy(to + at, &one, dtype_size(f.dtype));
    }
    shapes.push_back(f.shape);
    views.push_back({f.dtype, f.shape, to});
  }
  PortSink sink(*options_.pool, outputs_.size());
  bool ran = false;
  try {
    ran = time.spend(
        [&] { run_stages(file_.graph, plans_, plans_.acquire(shapes), views, sink, environment(), budget); });
  } catch (const Stopped&) {
    throw;
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kUnsupportedOp) throw;
  }
  if (!ran) return {};  // zeros are not what the model is for
  return std::move(sink.ports);
}

/// Compiles for guessed sizes of the free dimensions: shows what is not supported before the first request does, and
/// tells the outputs' types and which of their dimensions are free.
void Model::probe() {
  bool all_fixed = true;
  for (const PortSpec& in : inputs_) all_fixed &= in.shape.is_concrete();
  struct Guess {
    int64_t batch, other;
  };
  constexpr Guess kGuesses[] = {{2, 2},   {3, 32},  {2, 64}, {1, 1},  {3, 128},
                                {2, 224}, {1, 640}, {1, 3},  {2, 16}, {5, 7}};
  constexpr int64_t kIterations = 10'000;
  RunBudget budget{.iterations = kIterations, .nanos = options_.max_load_nanos, .max_bytes = options_.max_run_bytes};
  TimeBudget time(options_.max_load_nanos);
  std::vector<std::vector<Port>> seen;
  bool staged = false, fits = false;
  std::optional<Error> failure, too_large;
  for (const Guess& guess : kGuesses) {
    std::vector<InputFacts> facts;
    for (const PortSpec& in : inputs_) {
      Shape shape = in.shape;
      for (size_t i = 0; i < shape.rank(); ++i) {
        if (shape[i] == Shape::kFree) shape[i] = i == 0 ? guess.batch : guess.other;
      }
      facts.push_back({in.dtype, shape, nullptr});
    }
    try {
      auto ports = probe_outputs(facts, budget, time, staged);
      fits = true;
      if (!ports.empty()) seen.push_back(std::move(ports));
    } catch (const Stopped&) {
      throw;
    } catch (const Error& error) {
      // What is not supported is so whatever the sizes; what does not fit may fit with others.
      if (error.code() == ErrorCode::kUnsupportedOp || all_fixed || dynamic_cast<const WrongNode*>(&error)) throw;
      if (!failure) failure = error;
      if (!too_large && dynamic_cast<const PlanTooLarge*>(&error)) too_large = error;
    }
    if (all_fixed || seen.size() == 3) break;
  }
  plans_.trim();
  if (!fits && too_large) throw *too_large;
  for (size_t o = 0; o < outputs_.size(); ++o) {
    const Value& declared = file_.graph.values[static_cast<size_t>(file_.graph.outputs[o])];
    if (seen.empty()) {
      if (declared.shape && declared.dtype) continue;
      if (failure) throw *failure;
      throw Error(ErrorCode::kUnsupportedOp,
                  cat("output '", outputs_[o].name,
                      "' declares no type and shape, and a run on zeros does not tell them; declare them in the file"));
    }
    outputs_[o].dtype = seen[0][o].dtype;
    Shape shape = seen[0][o].shape;
    for (const auto& ports : seen) {
      for (size_t i = 0; i < shape.rank() && ports[o].shape.rank() == shape.rank(); ++i) {
        if (ports[o].shape[i] != shape[i]) shape[i] = Shape::kFree;
      }
    }
    // One sample of a graph with free inputs says little, zeros say less: there the declaration, if any, knows better.
    const bool unsure = staged || (!all_fixed && seen.size() == 1);
    if (unsure && declared.shape && declared.shape->rank() == shape.rank()) {
      shape = *declared.shape;
    } else if (staged) {
      for (size_t i = 0; i < shape.rank(); ++i) shape[i] = Shape::kFree;
    }
    outputs_[o].shape = shape;
  }
}

std::shared_ptr<const Plan> Model::compile_for(std::span<const Shape> shapes) {
  std::vector<InputFacts> facts;
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const bool foreign = inputs_[i].dtype != DType::kBool;  // bools come as copies: see Runner::run
    facts.push_back({inputs_[i].dtype, shapes[i], nullptr, foreign});
  }
  try {
    return file_.files.guarded([&] {
      return compile(file_.graph, facts, *packed_, {.max_run_bytes = options_.max_run_bytes, .files = &file_.files});
    });
  } catch (const Error& error) {
    file_.files.require_unchanged();
    // The graph itself passed probe(): it is these sizes that do not fit it.
    if (error.code() != ErrorCode::kModel) throw;
    std::string came;
    for (size_t i = 0; i < inputs_.size(); ++i) came += cat(i ? ", '" : "'", inputs_[i].name, "' ", shapes[i].str());
    const bool large = dynamic_cast<const PlanTooLarge*>(&error) != nullptr;
    throw Error(ErrorCode::kValidation, large ? Reason::kTooLarge : Reason::kShape,
                cat("the model cannot run on inputs of shape ", came, ": ", error.what()));
  }
}

RunEnvironment Model::environment() const {
  return {packed_.get(), options_.pool.get(), &subgraphs_, options_.threads, &file_.files};
}

Status Model::run(std::span<const TensorView> inputs, OutputSink& sink) noexcept {
  try {
    constexpr size_t kInline = 8;
    Shape shapes_inline[kInline];
    const void* in_inline[kInline];
    void* out_inline[kInline];
    std::vector<Shape> shapes_heap(inputs.size() > kInline ? inputs.size() : 0);
    std::vector<const void*> in_heap(shapes_heap.size());
    std::vector<void*> out_heap(outputs_.size() > kInline ? outputs_.size() : 0);
    Shape* shapes = shapes_heap.empty() ? shapes_inline : shapes_heap.data();
    const void** in = in_heap.empty() ? in_inline : in_heap.data();
    void** out = out_heap.empty() ? out_inline : out_heap.data();
    for (size_t i = 0; i < inputs.size(); ++i) {
      shapes[i] = inputs[i].shape;
      in[i] = inputs[i].data;
    }
    PlanCache::Lease lease = acquire({shapes, inputs.size()});
    const Plan& plan = lease.plan();
    if (plan.next) {
      RunBudget budget{.iterations = options_.max_iterations, .max_bytes = options_.max_run_bytes};
      file_.files.guarded(
          [&] { run_stages(file_.graph, plans_, std::move(lease), inputs, sink, environment(), budget); });
      return {};
    }
    for (size_t i = 0; i < plan.outputs.size(); ++i)
      out[i] = sink.allocate(i, plan.outputs[i].dtype, plan.outputs[i].shape);
    lease.session().run({in, inputs.size()}, {out, plan.outputs.size()}, exec_context(plan));
    return {};
  } catch (...) {
    return current_exception_status();
  }
}

int64_t Model::estimate_nanos(std::span<const Shape> shapes) const {
  constexpr int64_t kCompileNanos = 1'000'000;
  return plans_.estimated_nanos(shapes, kCompileNanos);
}

ModelMemory Model::memory() const {
  ModelMemory out;
  out.file_bytes = file_.file_bytes;
  out.misaligned_bytes = file_.misaligned_bytes;
  std::unordered_map<const void*, size_t> held;  // what several values share counts once
  const auto add = [&](const TensorView& view) {
    size_t& bytes = held[view.data];
    bytes = std::max(bytes, view.bytes());
  };
  for_each_constant(file_.graph, add);
  for (const NamedTensor& tensor : weights_->tensors()) add(tensor.view);
  for (const auto& [data, bytes] : held) (file_.files.find(data) ? out.mapped_bytes : out.copied_bytes) += bytes;
  out.packed_bytes = packed_->bytes();
  out.plans = plans_.stats();
  return out;
}

}  // namespace inferkit
