// A model tried out when it is loaded: what inferkit lacks shows before the first request, and so do the shapes of the
// outputs.
#include <algorithm>
#include <cstring>
#include <optional>

#include "engine/compile/plan_limits.h"
#include "engine/model/check_branches.h"
#include "engine/model/guess_sizes.h"
#include "engine/model/model.h"
#include "engine/plan/text_heap.h"
#include "engine/run/declared_output.h"
#include "graph/tensor_list.h"
#include "platform/stoppable.h"

namespace inferkit {
namespace {

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

/// What one plan of a run that only tries a model out may take, what is held between its plans, and its outputs: a file
/// of a few kilobytes must not take all that a run may.
size_t trial_bytes(const ModelOptions& options) { return std::min(options.max_run_bytes, size_t{1} << 30); }

}  // namespace

/// What a run on zeros gives, where the shapes depend on values: the types and shapes of the outputs alone are kept.
class Model::PortSink final : public RunSink {
 public:
  /// `most` bytes at most, for all outputs.
  PortSink(BufferPool& pool, const Graph& graph, size_t most)
      : ports(graph.outputs.size()), pool_(pool), graph_(graph), most_(most), left_(most) {}
  void* allocate(size_t index, DType dtype, const Shape& shape) override {
    require_declared_tensor(graph_, index, dtype);
    ports[index] = {dtype, shape};
    const size_t bytes = value_bytes(dtype, shape);
    if (bytes > left_)
      throw PlanTooLarge(cat("its outputs take more than a trial run may, which is ", most_ >> 20, " MiB"));
    left_ -= bytes;
    buffers_.push_back(pool_.acquire(std::max<size_t>(TensorView{dtype, shape, nullptr}.bytes(), 1), "probe"));
    return buffers_.back().data();
  }
  void give(size_t index, const Tensor& list) override {
    require_declared_list(graph_, index, list);
    ports[index] = {list.dtype, list.shape};
  }
  std::vector<Port> ports;

 private:
  BufferPool& pool_;
  const Graph& graph_;
  const size_t most_;
  size_t left_;
  std::vector<Buffer> buffers_;
};

/// What all runs that try a model out share.
struct Model::Trial {
  RunBudget budget;
  TimeBudget time;
  bool staged = false;          // the shapes of the outputs may depend on values
  std::string failure = {};     // why the first run that failed told nothing
  bool too_large = false;       // more than a run may take, already of what was tried
  std::vector<Port> ones = {};  // what a run on ones gave, of whose shapes nothing else is known
};

/// The outputs that a plan for these inputs gives; empty where only a run on real values could tell.
std::vector<Port> Model::probe_outputs(std::span<const InputFacts> facts, Trial& trial) {
  const CompileOptions options{.max_run_bytes = options_.max_run_bytes,
                               .device = options_.device,
                               .fallback = options_.fallback,
                               .precision = options_.precision,
                               .threads = options_.threads,
                               .lacking = options_.lacking.get(),
                               .text = &text_};
  const auto plan = compile(file_.graph, facts, *packed_, options);
  if (!plan->next) return plan->outputs;
  const bool first = !trial.staged;
  trial.staged = true;
  staged_.store(true, std::memory_order_relaxed);
  // What a branch may take, and which threads and texts it has, a run tells.
  const CompileOptions on_device{
      .device = options_.device, .fallback = options_.fallback, .lacking = options_.lacking.get()};
  if (const auto lines = unsupported_in_branches(*plan, file_.graph, facts, *packed_, on_device); !lines.empty()) {
    throw Unsupported(lines);
  }
  std::vector<Port> ports = run_on_constants(facts, 0, trial.budget, trial);
  if (first) {
    // Zeros select nothing and end loops before they begin: what follows shows with ones. Once, and for its support
    // alone.
    RunBudget once{.iterations = 100, .nanos = options_.max_load_nanos / 4, .max_bytes = trial_bytes(options_)};
    trial.ones = run_on_constants(facts, 1, once, trial);
  }
  return ports;
}

namespace {

/// Zeros, or ones.
void fill(Buffer& buffer, const InputFacts& f, int value) {
  auto* to = static_cast<std::byte*>(buffer.data());
  if (f.dtype == DType::kString) {
    const std::string_view digit = value == 0 ? "0" : "1";
    std::fill_n(buffer.as<std::string_view>(), f.shape.elements(), digit);
    return;
  }
  const size_t bytes = TensorView{f.dtype, f.shape, nullptr}.bytes();
  const uint64_t first = value == 0 ? 0 : bits_of_one(f.dtype);
  const size_t size = std::min(bytes, dtype_size(f.dtype));
  std::memset(to, 0, size);
  std::memcpy(to, &first, std::min(size, sizeof(first)));
  for (size_t done = size; done < bytes; done *= 2) std::memcpy(to + done, to, std::min(done, bytes - done));
}

/// A sequence to try out: the tensor twice.
Tensor pair_of(const Tensor& item) {
  Tensor out;
  out.dtype = item.dtype;
  out.shape = {0};
  out.list = std::make_shared<const TensorList>(TensorList{.none = false, .items = TensorItems({item, item})});
  return out;
}

}  // namespace

/// What a run gives whose inputs are all zeros, or all ones; empty where they are not what the model is for.
std::vector<Port> Model::run_on_constants(std::span<const InputFacts> facts, int value, RunBudget& budget,
                                          Trial& trial) {
  constexpr size_t kMaxBytes = size_t{64} << 20;
  std::vector<Shape> shapes;
  std::vector<Tensor> inputs;
  std::vector<Buffer> values;
  size_t total = 0;
  for (const InputFacts& f : facts) {
    const size_t bytes = TensorView{f.dtype, f.shape, nullptr}.bytes();
    total += std::min(bytes, kMaxBytes + 1);
    if (total > kMaxBytes) {
      if (trial.failure.empty()) trial.failure = cat("inputs of more than ", kMaxBytes >> 20, " MiB are not tried");
      return {};
    }
    values.push_back(options_.pool->acquire(std::max<size_t>(bytes, 1), "probe"));
    auto* to = static_cast<std::byte*>(values.back().data());
    shapes.push_back(f.shape);
    inputs.push_back({f.dtype, f.shape, to, nullptr});
    fill(values.back(), f, value);
    if (f.is_list) inputs.back() = pair_of(inputs.back());
  }
  PortSink sink(*options_.pool, file_.graph, trial_bytes(options_));
  std::string failure = "it takes too long";
  TextHeap text(*options_.pool, options_.max_run_bytes);
  const TextHeap::Scope scope(text);
  try {
    const bool ran = trial.time.spend([&] {
      run_stages(file_.graph, plans_, has_lists_ ? acquire_lists(inputs) : plans_.acquire(shapes), inputs, sink,
                 environment(), budget);
    });
    if (ran) return std::move(sink.ports);
  } catch (const Stopped&) {
    throw;
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kUnsupportedOp || dynamic_cast<const WrongOutput*>(&error)) throw;
    failure = error.what();
    trial.too_large = trial.too_large || error.reason() == Reason::kTooLarge;
  }
  if (trial.failure.empty()) trial.failure = std::move(failure);
  return {};  // zeros are not what the model is for
}

/// Shapes alone, of long inputs: what many sizes share, such as the one frame of a short signal, need not hold for all.
std::vector<Model::FarShapes> Model::look_far() {
  constexpr int64_t kLengths[] = {1000, 16'001};
  std::vector<FarShapes> out(outputs_.size());
  const auto is_long = [](const PortSpec& in) {
    return std::any_of(in.shape.begin() + (in.shape.rank() > 0), in.shape.end(), [](int64_t d) { return d < 0; });
  };
  if (has_lists_ || std::none_of(inputs_.begin(), inputs_.end(), is_long)) return {};
  for (const int64_t length : kLengths) {
    std::vector<InputFacts> facts;
    for (const PortSpec& in : inputs_) {
      Shape shape = in.shape;
      for (size_t i = 0; i < shape.rank(); ++i) {
        if (shape[i] == Shape::kFree) shape[i] = i == 0 ? 2 : length;
      }
      facts.push_back({in.dtype, shape, nullptr});
    }
    try {
      const auto shapes = infer_outputs(file_.graph, facts, *packed_, {.threads = options_.threads});
      for (size_t o = 0; o < out.size(); ++o) {
        if (shapes[o]) out[o].push_back(*shapes[o]);
      }
    } catch (const Stopped&) {
      throw;
    } catch (const Error&) {  // they do not fit
    }
  }
  return out;
}

namespace {

/// A dimension that differs far off is free, and so is one that the file says is: answers are held to what is found
/// here, and samples prove nothing of what they are not.
void believe(Shape& shape, const std::vector<Shape>& far, const std::optional<Shape>& declared) {
  for (size_t i = 0; i < shape.rank(); ++i) {
    bool free = declared && declared->rank() == shape.rank() && (*declared)[i] == Shape::kFree;
    for (const Shape& other : far) free |= i > 0 && other.rank() == shape.rank() && other[i] != shape[i];
    if (free) shape[i] = Shape::kFree;
  }
}

std::string without_shapes(std::span<const PortSpec> inputs) {
  std::string out;
  for (const PortSpec& in : inputs) {
    if (in.any_shape) out += cat(out.empty() ? "input '" : ", input '", in.name, "'");
  }
  return out;
}

}  // namespace

/// Compiles for guessed sizes of the free dimensions: shows what is not supported before the first request does, and
/// tells the outputs' types and which of their dimensions are free. `told`: their types, where the graph tells them and
/// the file does not declare all.
void Model::probe(std::span<const std::optional<DType>> told) {
  // Where the file declares no shape, as of tensors in sequences, ranks are guessed, too, until one runs.
  constexpr size_t kRanks[] = {2, 1, 3, 4, 5, 0};
  const bool guess = std::ranges::any_of(inputs_, &PortSpec::any_shape);
  // Then an answer's shape is of what comes, and the guesses say nothing of it.
  const bool any_rank = std::ranges::any_of(inputs_, [](const PortSpec& in) { return in.any_shape && !in.is_list(); });
  constexpr int64_t kIterations = 10'000;
  // Where the file does not declare all outputs, the model cannot do without a run, which may take longer than what is
  // only good to know. A busy machine must not decide whether it loads: the clock ends what the estimates are far off
  // for.
  const bool needed = std::any_of(file_.graph.outputs.begin(), file_.graph.outputs.end(), [&](ValueId id) {
    const Value& declared = file_.graph.values[static_cast<size_t>(id)];
    return !declared.list && (!declared.shape || !declared.dtype);
  });
  const int64_t nanos = (needed ? 3 : 1) * options_.max_load_nanos;
  Trial trial{.budget = {.iterations = kIterations, .nanos = nanos, .max_bytes = trial_bytes(options_)},
              .time = TimeBudget(nanos, (needed ? 4 : 2) * nanos)};
  std::vector<std::vector<Port>> seen;
  bool fits = false, all_fixed = false;
  bool hopeless = true;  // what failed does so whatever the sizes
  std::optional<Error> failure, too_large;
  const auto attempt = [&](std::span<const Shape> shapes, const Sizes& sizes) {
    std::vector<InputFacts> facts;
    auto size = sizes.begin();
    for (size_t in = 0; in < inputs_.size(); ++in) {
      Shape shape = shapes[in];
      for (size_t i = 0; i < shape.rank(); ++i) {
        if (shape[i] == Shape::kFree) shape[i] = *size++;
      }
      // Of a tensor the compiler says so; the items of a list it does not see.
      if (inputs_[in].is_list() && !shape.checked_elements()) {
        throw Error(ErrorCode::kModel,
                    cat("input '", inputs_[in].name, "' has items of shape ", shape.str(), ", which are too large"));
      }
      facts.push_back({inputs_[in].dtype, shape, nullptr, true, inputs_[in].sequence});
    }
    try {
      auto ports = probe_outputs(facts, trial);
      fits = true;
      if (!ports.empty()) {
        seen.push_back(std::move(ports));
        trial.budget.nanos = std::min(trial.budget.nanos, options_.max_load_nanos);
      }
    } catch (const Stopped&) {
      throw;
    } catch (const WrongOutput&) {
      throw;
    } catch (const Error& error) {
      // Something fits: these sizes are none that the model is for.
      if (fits && error.code() == ErrorCode::kUnsupportedOp) return;
      // What is not supported is so whatever the sizes; what does not fit may fit with others.
      const bool firm = error.code() == ErrorCode::kUnsupportedOp || dynamic_cast<const WrongNode*>(&error);
      if (!guess && (firm || all_fixed)) throw;
      hopeless = hopeless && firm;
      trial.too_large = trial.too_large || error.reason() == Reason::kTooLarge;
      if (!failure) failure = error;
      if (!too_large && dynamic_cast<const PlanTooLarge*>(&error)) too_large = error;
    }
  };
  /// Until something is seen of it.
  const auto try_shapes = [&](std::span<const Shape> shapes) {
    std::vector<bool> is_batch;  // of each free dimension
    for (const Shape& shape : shapes) {
      for (size_t i = 0; i < shape.rank(); ++i) {
        if (shape[i] == Shape::kFree) is_batch.push_back(i == 0);
      }
    }
    all_fixed = is_batch.empty();
    for (const Sizes& sizes : equal_sizes(is_batch)) {
      attempt(shapes, sizes);
      if (all_fixed || seen.size() == 3) break;
    }
    if (fits || !needed) return;
    std::vector<Sizes> more = known_sizes(is_batch, sizes_of_weights(file_.graph));
    for (Sizes& sizes : different_sizes(is_batch)) more.push_back(std::move(sizes));
    for (const Sizes& sizes : stoppable(more)) {
      attempt(shapes, sizes);
      if (fits) break;
    }
  };
  for (const size_t rank : kRanks) {
    std::vector<Shape> shapes;
    for (const PortSpec& in : inputs_) {
      Shape& shape = shapes.emplace_back(in.shape);
      for (size_t i = 0; in.any_shape && i < rank; ++i) shape.push_back(Shape::kFree);
    }
    try_shapes(shapes);
    if (!guess || !seen.empty()) break;
  }
  plans_.trim();
  if (!fits && too_large) throw *too_large;
  if (!fits && guess && hopeless && failure) throw *failure;
  const std::vector<FarShapes> far = all_fixed || trial.staged ? std::vector<FarShapes>() : look_far();
  for (size_t o = 0; o < outputs_.size(); ++o) {
    const Value& declared = file_.graph.values[static_cast<size_t>(file_.graph.outputs[o])];
    if (declared.list) continue;
    if (seen.empty()) {
      // Sizes that nobody guessed, or other values than zeros, may be what the model is for; not where small ones are
      // more than a run may take. The type hangs on neither: where the file declares none, a run on ones tells it, or
      // the operators do.
      std::optional<DType> dtype = declared.dtype;
      if (!dtype && !trial.ones.empty()) dtype = trial.ones[o].dtype;
      if (!dtype && fits && o < told.size()) dtype = told[o];
      if (dtype && (!guess || any_rank) && !trial.too_large) {
        outputs_[o].dtype = *dtype;
        outputs_[o].any_shape = !declared.shape;
        continue;
      }
      if (declared.shape && declared.dtype) continue;
      if (failure && !fits) throw *failure;
      throw Error(ErrorCode::kUnsupportedOp,
                  cat("output '", outputs_[o].name,
                      "' declares no type and shape, and a trial run on zeros, which would show them, failed: ",
                      trial.failure, "; declare them in the model file",
                      guess ? cat(", or the shapes of ", any_rank ? "" : "the tensors in ", without_shapes(inputs_),
                                  ": none is declared, and ranks 0 to 5 were tried")
                            : ""));
    }
    if (!trial.staged) require_declared_type(file_.graph, o, seen[0][o].dtype);
    // On zeros a loop may make no iteration, and its body tell no type.
    outputs_[o].dtype = trial.staged && declared.dtype ? *declared.dtype : seen[0][o].dtype;
    if (any_rank && !declared.shape) {
      outputs_[o].any_shape = true;
      continue;
    }
    Shape shape = seen[0][o].shape;
    for (const auto& ports : seen) {
      for (size_t i = 0; i < shape.rank() && ports[o].shape.rank() == shape.rank(); ++i) {
        if (ports[o].shape[i] != shape[i]) shape[i] = Shape::kFree;
      }
    }
    if (o < far.size()) believe(shape, far[o], declared.shape);
    // One sample of a graph with free inputs says little, zeros say less: there the declaration, if any, knows better.
    const bool unsure = guess || trial.staged || (!all_fixed && seen.size() == 1);
    if (unsure && declared.shape && (guess || declared.shape->rank() == shape.rank())) {
      shape = *declared.shape;
    } else if (unsure) {
      for (size_t i = 0; i < shape.rank(); ++i) shape[i] = Shape::kFree;
    }
    outputs_[o].shape = shape;
  }
}

}  // namespace inferkit
