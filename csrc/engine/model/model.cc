#include "engine/model/model.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <stdexcept>

#include "base/text.h"
#include "engine/compile/expand.h"
#include "engine/compile/op_registry.h"
#include "engine/compile/plan_limits.h"
#include "engine/model/check_attributes.h"
#include "engine/model/input_sense.h"
#include "engine/model/model_fork.h"
#include "engine/model/told_types.h"
#include "engine/model/widen_halves.h"
#include "engine/plan/text_heap.h"
#include "engine/run/keep_text.h"
#include "graph/copy_graph.h"
#include "graph/draws.h"
#include "graph/model_weights.h"
#include "graph/onnx_reader.h"
#include "graph/passes/fold_constants.h"
#include "graph/passes/passes.h"
#include "platform/float_environment.h"
#include "platform/stoppable.h"
#include "platform/thread_pool.h"

namespace inferkit {
namespace {

/// One folded value may take this much, and all of them together this much and so many times the size of the file.
constexpr size_t kMaxFoldedBytes = size_t{64} << 20;
constexpr size_t kMaxFoldedTotal = size_t{256} << 20, kMaxFoldedRatio = 4;
constexpr size_t kMaxIdleSessions = 16;

/// Leaves those outputs, in this order, and what they need. No names leave all.
void choose_outputs(Graph& graph, std::span<const std::string> names) {
  if (names.empty()) return;
  const auto name_of = [&](ValueId id) -> const std::string& { return graph.values[static_cast<size_t>(id)].name; };
  std::vector<ValueId> chosen;
  for (const std::string& name : names) {
    const auto it = std::ranges::find(graph.outputs, name, name_of);
    if (it == graph.outputs.end()) {
      std::string has;
      for (const ValueId id : graph.outputs) has += cat(has.empty() ? "" : ", ", quote(name_of(id)));
      throw std::invalid_argument(cat("the model has no output ", quote(name), "; it has ", has));
    }
    if (std::ranges::find(chosen, *it) != chosen.end())
      throw std::invalid_argument(cat("the output ", quote(name), " is named twice in outputs"));
    chosen.push_back(*it);
  }
  graph.outputs = std::move(chosen);
  eliminate_dead_nodes(graph);
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

PortSpec list_port(const Value& value) {
  const ListType& list = *value.list;
  return {value.name,    list.dtype.value_or(DType::kF32), list.shape.value_or(Shape{}), list.sequence,
          list.optional, !list.shape.has_value()};
}

/// Calls visit(Tensor) for every constant, those of subgraphs and attributes included.
template <class Visit>
void for_each_constant(const Graph& graph, const Visit& visit) {
  for (const auto& [id, tensor] : graph.constants) visit(tensor);
  for (const Node& node : stoppable(graph.nodes)) {
    for (const auto& [name, attribute] : node.attributes) {
      if (const auto* tensor = std::get_if<Tensor>(&attribute)) visit(*tensor);
      if (const auto* body = std::get_if<std::shared_ptr<Graph>>(&attribute)) for_each_constant(**body, visit);
    }
  }
}

}  // namespace

std::shared_ptr<Model> Model::load(const std::string& path, ModelOptions options) {
  return make(read_onnx(path, options.placement), std::move(options), path);
}

std::shared_ptr<Model> Model::load_bytes(std::span<const std::byte> bytes, ModelOptions options) {
  return make(read_onnx(bytes), std::move(options), "");
}

int Model::threads_of(const ModelOptions& options) {
  if (options.threads < 0) throw std::invalid_argument("threads must be 0 (all) or more");
  const int most = ThreadPool::process().usable_size();
  return options.threads == 0 ? most : std::min(options.threads, most);
}

Model::Model(ModelFile file, ModelOptions options, std::string path, std::shared_ptr<const PackedFile> packed)
    : options_([&] {
        if (options.threads <= 0) options.threads = threads_of(options);  // make() has asked: nobody sees two numbers
        if (options.max_plans == 0) throw std::invalid_argument("max_plans must be at least 1");
        if (options.max_run_bytes == 0) options.max_run_bytes = default_max_run_bytes();
        if (!options.pool) options.pool = BufferPool::process_default();
        return std::move(options);
      }()),
      path_(std::move(path)),
      file_(std::move(file)),
      packed_([&] {
        MappedFiles model = file_.files;
        if (packed) model.remove(*packed->file());
        return std::make_unique<PackedWeights>(packed, std::move(model), options_.threads);
      }()),
      plans_([this](std::span<const Shape> shapes) { return compile_for(shapes); }, options_.pool, options_.max_plans,
             kMaxIdleSessions) {
  const FloatEnvironment ours;  // the passes compute new weights
  number_draws(file_.graph);
  for (const DefaultInput& input : file_.defaults) {
    const Value& value = input.declared;
    const Tensor& given = file_.graph.constants.at(input.id);
    defaults_.push_back({value.name, value.dtype.value_or(given.dtype), value.shape.value_or(given.shape)});
  }
  if (!defaults_.empty()) original_ = std::make_shared<ModelFile>(copy_model(file_));
  initializers_ = initializers_of(file_);
  const bool halves = can_widen_halves(file_.graph);  // of all of it: bits do not depend on what is chosen
  choose_outputs(file_.graph, options_.outputs);
  read_specs();
  lift_constants(file_.graph);
  std::vector<std::string> unsupported = missing_operators(file_.graph);
  check_arities(file_.graph);
  senses_ = input_senses(file_.graph);
  const std::vector<std::optional<DType>> told = told_types(file_.graph);
  name_required_outputs(file_.graph);
  if (halves) widen_halves(file_.graph);
  expand_nodes(file_.graph, unsupported);
  eliminate_dead_nodes(file_.graph);
  check_attributes(file_.graph, unsupported);
  if (!unsupported.empty()) throw Unsupported(unsupported);
  hoist_invariants(file_.graph);
  fuse_quantized(file_.graph);
  read_transposed(file_.graph);
  size_t budget = kMaxFoldedTotal + kMaxFoldedRatio * file_.file_bytes;
  TimeBudget time(options_.max_load_nanos);
  const auto fold = [&](const Node& node, std::span<const Tensor* const> in) {
    return evaluate(node, in, budget, time);
  };
  fold_constants(file_.graph, fold, kMaxFoldedBytes);
  run_passes(file_.graph);
  if (options_.device->kind() != DeviceKind::kNull) fuse_chains(file_.graph);
  fold_constants(file_.graph, fold, kMaxFoldedBytes);
  eliminate_dead_nodes(file_.graph);
  number_graph(file_.graph);
  subgraphs_.add_all(file_.graph, options_.pool, options_.max_plans);
  probe(told);
  find_shared();
  mixing_node_ = find_mixing();
  rows_draw_ = draws_rows(file_.graph);
  if (file_.misaligned_bytes > 0) forget_copied_files();
  register_for_fork(this);
}

Model::~Model() { unregister_for_fork(this); }

/// Files of whose constants everything has been copied by now may change: nothing of them is read any more.
void Model::forget_copied_files() {
  MappedFiles read;
  const auto visit = [&](const Tensor& t) {
    if (t.data.odd() && t.data.odd()->copied()) return;
    if (const auto* file = file_.files.find(t.data.place())) read.add(*file);
  };
  for_each_constant(file_.graph, visit);
  if (original_) for_each_constant(original_->graph, visit);
  for (const auto& [name, tensor] : stoppable(initializers_.named)) visit(tensor);
  if (packed_->shared()) read.add(packed_->shared()->file());
  file_.files = read;
  if (original_) original_->files = read;
  initializers_.files = std::move(read);
}

std::shared_ptr<const Weights> Model::weights() {
  const auto known = [&] {
    const std::lock_guard lock(variants_mutex_);
    return weights_;
  };
  if (auto made = known()) return made;
  auto made = weights_of(initializers_, path_);
  const std::lock_guard lock(variants_mutex_);
  if (!weights_) weights_ = std::move(made);  // another thread may have been faster
  return weights_;
}

namespace {

/// A copy, so that it hangs on no file; null where it is too large to be worth one, or of strings.
std::shared_ptr<const TensorView> fallback_of(const Tensor& value) {
  constexpr size_t kMost = size_t{1} << 16;
  if (value.dtype == DType::kString || value.bytes() > kMost) return nullptr;
  void* memory = nullptr;
  auto copy = std::make_shared<Tensor>(make_tensor(value.dtype, value.shape, &memory));
  if (value.bytes() > 0) std::memcpy(memory, value.data, value.bytes());
  const auto view = std::make_shared<std::pair<std::shared_ptr<Tensor>, TensorView>>(copy, copy->view());
  return {view, &view->second};
}

}  // namespace

std::shared_ptr<Model> Model::with_inputs(const std::vector<std::string>& names) {
  constexpr size_t kMostVariants = 16;
  const auto find = [&]() -> std::shared_ptr<Model> {
    const std::lock_guard lock(variants_mutex_);
    const auto it = std::ranges::find(variants_, names, [](const auto& entry) -> auto& { return entry.first; });
    return it == variants_.end() ? nullptr : it->second;
  };
  if (auto known = find()) return known;
  ModelFile file = copy_model(*original_);  // its passes change subgraphs, too
  std::vector<DefaultInput> left;
  for (const DefaultInput& input : original_->defaults) {
    if (std::ranges::find(names, input.declared.name) == names.end()) {
      left.push_back(input);
      continue;
    }
    Value& value = file.graph.values[static_cast<size_t>(input.id)];
    value.dtype = input.declared.dtype;
    const Tensor& given = file.graph.constants.at(input.id);
    value.shape = input.declared.shape.value_or(given.shape);
    file.fallbacks.emplace(input.id, fallback_of(given));
    file.graph.constants.erase(input.id);
    file.graph.inputs.push_back(input.id);
  }
  file.defaults = std::move(left);
  auto made =
      file_.files.guarded([&] { return std::make_shared<Model>(std::move(file), options_, path_, packed_->shared()); });
  if (auto known = find()) return known;  // another thread's, meanwhile
  std::shared_ptr<Model> oldest;          // ends after the lock, which forks take after that of the list it is in
  const std::lock_guard lock(variants_mutex_);
  if (variants_.size() == kMostVariants) {
    oldest = std::move(variants_.front().second);
    variants_.pop_front();
  }
  variants_.emplace_back(names, made);
  return made;
}

void Model::lock() {
  variants_mutex_.lock();
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
  variants_mutex_.unlock();
}

namespace {

bool fits_shape(const PortSpec& port, const Shape& shape) {
  if (port.any_shape || port.shape.rank() != shape.rank()) return false;
  for (size_t i = 0; i < shape.rank(); ++i) {
    if (port.shape[i] != Shape::kFree && port.shape[i] != shape[i]) return false;
  }
  return true;
}

}  // namespace

void Model::read_specs() {
  const Graph& graph = file_.graph;
  for (ValueId id : graph.inputs) {
    const Value& value = graph.values[static_cast<size_t>(id)];
    if (value.list) {
      inputs_.push_back(list_port(value));
      continue;
    }
    if (!value.dtype) throw Error(ErrorCode::kModel, cat("input '", value.name, "' declares no element type"));
    inputs_.push_back(
        {.name = value.name, .dtype = *value.dtype, .shape = value.shape.value_or(Shape{}), .any_shape = !value.shape});
    if (const auto it = file_.fallbacks.find(id); it != file_.fallbacks.end()) {
      const bool fits =
          it->second && it->second->dtype == *value.dtype && fits_shape(inputs_.back(), it->second->shape);
      if (fits) inputs_.back().fallback = it->second;
    }
  }
  // What may be left out is no row of a request where the batch is free and its own first dimension is not.
  const auto is_batch = [](const PortSpec& in) { return !in.shape.empty() && in.shape[0] == Shape::kFree; };
  const bool free_batch = std::ranges::any_of(inputs_, is_batch);
  for (size_t i = 0; i < inputs_.size(); ++i) {
    PortSpec& in = inputs_[i];
    if (!file_.fallbacks.contains(graph.inputs[i]) || in.shape.empty()) continue;
    in.shared = free_batch && !is_batch(in);
    if (!in.shared) in.fallback = nullptr;
  }
  if (graph.outputs.empty()) throw Error(ErrorCode::kModel, "the model has no outputs");
  for (ValueId id : graph.outputs) {
    const Value& value = graph.values[static_cast<size_t>(id)];
    if (value.list) {
      outputs_.push_back(list_port(value));
      continue;
    }
    outputs_.push_back({value.name, value.dtype.value_or(DType::kF32), value.shape.value_or(Shape{})});
  }
  has_lists_ = std::ranges::any_of(inputs_, &PortSpec::is_list) || std::ranges::any_of(outputs_, &PortSpec::is_list);
}

InputFacts Model::facts_of(const Tensor& input) {
  // Bools and strings come as copies: see Runner::run.
  const bool foreign = input.dtype != DType::kBool && input.dtype != DType::kString;
  return {input.dtype, input.shape, nullptr, foreign, input.list != nullptr};
}

std::shared_ptr<const Plan> Model::compile_for(std::span<const Shape> shapes, PlanNotes* notes) {
  std::vector<InputFacts> facts;
  for (size_t i = 0; i < inputs_.size(); ++i)
    facts.push_back(facts_of({inputs_[i].dtype, shapes[i], nullptr, nullptr}));
  return compile_for(facts, notes);
}

std::shared_ptr<const Plan> Model::compile_for(std::span<const InputFacts> facts, PlanNotes* notes) {
  return compile_for(facts, notes, options_.precision, *packed_);
}

std::shared_ptr<const Plan> Model::compile_for(std::span<const InputFacts> facts, PlanNotes* notes, Precision precision,
                                               ModelCache& packed, int threads) {
  try {
    auto plan = file_.files.guarded([&] {
      return compile(file_.graph, facts, packed,
                     {.max_run_bytes = options_.max_run_bytes,
                      .device = options_.device,
                      .fallback = options_.fallback,
                      .precision = precision,
                      .threads = threads == 0 ? options_.threads : threads,
                      .files = &file_.files,
                      .lacking = options_.lacking.get(),
                      .notes = notes,
                      .text = &text_});
    });
    if (plan->next) staged_.store(true, std::memory_order_relaxed);
    return plan;
  } catch (const Error& error) {
    file_.files.require_unchanged();
    // The graph itself passed probe(): it is these sizes that do not fit it.
    if (error.code() != ErrorCode::kModel) throw;
    std::string came;
    for (size_t i = 0; i < inputs_.size(); ++i)
      came += cat(i ? ", '" : "'", inputs_[i].name, "' ", facts[i].shape.str());
    const bool large = dynamic_cast<const PlanTooLarge*>(&error) != nullptr;
    throw Error(ErrorCode::kValidation, large ? Reason::kTooLarge : Reason::kShape,
                cat("the model cannot run on inputs of shape ", came, ": ", error.what()));
  }
}

RunEnvironment Model::environment() const {
  return {packed_.get(),   options_.pool.get(), &subgraphs_,       options_.threads,      &file_.files,
          options_.device, options_.precision,  options_.fallback, options_.lacking.get()};
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
    if (plan.next || has_text()) {
      std::vector<Tensor> tensors;
      for (const TensorView& view : inputs) tensors.push_back({view.dtype, view.shape, view.data, nullptr});
      run_whole(std::move(lease), tensors, sink);
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

void Model::run_whole(PlanCache::Lease lease, std::span<const Tensor> inputs, OutputSink& sink) {
  RunBudget budget{.iterations = options_.max_iterations, .max_bytes = options_.max_run_bytes};
  TextHeap text(*options_.pool, options_.max_run_bytes);
  const TextHeap::Scope scope(text);
  TextSink outputs(sink, file_.graph);
  file_.files.guarded(
      [&] { run_stages(file_.graph, plans_, std::move(lease), inputs, outputs, environment(), budget); });
  outputs.keep(options_.max_run_bytes);
}

Status Model::run_lists(std::span<const Tensor> inputs, OutputSink& sink) noexcept {
  try {
    run_whole(acquire_lists(inputs), inputs, sink);
    return {};
  } catch (...) {
    return current_exception_status();
  }
}

/// What is in the sequences does not matter to the plan that a run begins with.
PlanCache::Lease Model::acquire_lists(std::span<const Tensor> inputs) {
  std::vector<Shape> shapes;
  std::vector<InputFacts> facts;
  std::string key("lists");
  for (const Tensor& in : inputs) {
    shapes.push_back(in.shape);
    facts.push_back(facts_of(in));
    key.push_back(static_cast<char>(in.dtype));
    key.push_back(in.list ? 'l' : 't');
  }
  return plans_.acquire(shapes, key, [&] { return compile_for(facts, nullptr); });
}

int64_t Model::estimate_nanos(std::span<const Shape> shapes) const {
  constexpr int64_t kCompileNanos = 1'000'000;
  return plans_.estimated_nanos(shapes, kCompileNanos);
}

ModelMemory Model::memory() const {
  ModelMemory out;
  out.file_bytes = file_.file_bytes;
  struct Held {
    size_t bytes = 0;
    const OddBytes* odd = nullptr;
  };
  std::unordered_map<const void*, Held> held;  // what several values share counts once
  const auto add = [&](const Tensor& t) {
    Held& has = held[t.data.place()];
    has = {std::max(has.bytes, t.bytes()), t.data.odd()};
  };
  for_each_constant(file_.graph, add);
  for (const auto& [name, tensor] : initializers_.named) add(tensor);
  for (const auto& [place, has] : held) {
    const bool copied_odd = has.odd && has.odd->copied();
    const bool mapped = !copied_odd && file_.files.find(place);
    (mapped ? out.mapped_bytes : out.copied_bytes) += has.bytes;
    if (copied_odd) out.misaligned_bytes += has.bytes;
  }
  out.packed_bytes = packed_->bytes();
  out.packed_shared_bytes = packed_->shared_bytes();
  out.plans = plans_.stats();
  return out;
}

}  // namespace inferkit
