// A model tried out when it is loaded: what inferkit lacks shows before the first request, and so do the shapes of the
// outputs.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "engine/compile/plan_limits.h"
#include "engine/model/check_branches.h"
#include "engine/model/model.h"
#include "engine/plan/text_heap.h"
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
  PortSink(BufferPool& pool, std::span<const PortSpec> specs, size_t most)
      : ports(specs.size()), pool_(pool), specs_(specs), most_(most), left_(most) {}
  void* allocate(size_t index, DType dtype, const Shape& shape) override {
    ports[index] = {dtype, shape};
    const size_t bytes = value_bytes(dtype, shape);
    if (bytes > left_)
      throw PlanTooLarge(cat("its outputs take more than a trial run may, which is ", most_ >> 20, " MiB"));
    left_ -= bytes;
    buffers_.push_back(pool_.acquire(std::max<size_t>(TensorView{dtype, shape, nullptr}.bytes(), 1), "probe"));
    return buffers_.back().data();
  }
  void give(size_t index, const Tensor& list) override {
    if (!specs_[index].is_list()) {
      throw Error(ErrorCode::kUnsupportedOp,
                  cat("output '", specs_[index].name, "' is a sequence, which the model does not declare"));
    }
    ports[index] = {list.dtype, list.shape};
  }
  std::vector<Port> ports;

 private:
  BufferPool& pool_;
  std::span<const PortSpec> specs_;
  const size_t most_;
  size_t left_;
  std::vector<Buffer> buffers_;
};

/// What all runs that try a model out share.
struct Model::Trial {
  RunBudget budget;
  TimeBudget time;
  bool staged = false;       // the shapes of the outputs may depend on values
  std::string failure = {};  // why the first run that failed told nothing
};

/// The outputs that a plan for these inputs gives; empty where only a run on real values could tell.
std::vector<Port> Model::probe_outputs(std::span<const InputFacts> facts, Trial& trial) {
  const auto plan = compile(file_.graph, facts, *packed_,
                            {.max_run_bytes = options_.max_run_bytes,
                             .device = options_.device,
                             .precision = options_.precision,
                             .threads = options_.threads,
                             .text = &text_});
  if (!plan->next) return plan->outputs;
  const bool first = !trial.staged;
  trial.staged = true;
  staged_.store(true, std::memory_order_relaxed);
  if (const auto lines = unsupported_in_branches(*plan, file_.graph, facts, *packed_); !lines.empty()) {
    throw Unsupported(lines);
  }
  std::vector<Port> ports = run_on_constants(facts, 0, trial.budget, trial);
  if (first) {
    // Zeros select nothing and end loops before they begin: what follows shows with ones. Once, and for its support
    // alone.
    RunBudget once{.iterations = 100, .nanos = options_.max_load_nanos / 4, .max_bytes = trial_bytes(options_)};
    run_on_constants(facts, 1, once, trial);
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
  out.list = std::make_shared<const TensorList>(TensorList{.none = false, .items = {item, item}});
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
  PortSink sink(*options_.pool, outputs_, trial_bytes(options_));
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
    if (error.code() == ErrorCode::kUnsupportedOp) throw;
    failure = error.what();
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

/// Sizes of the free dimensions, in the order in which the inputs have them.
using Sizes = std::vector<int64_t>;

/// What is tried first: one size for the first dimension of each input, and one for all others.
std::vector<Sizes> equal_sizes(const std::vector<bool>& is_batch) {
  struct Guess {
    int64_t batch, other;
  };
  constexpr Guess kGuesses[] = {{2, 2},   {3, 32},  {2, 64}, {1, 1},  {3, 128},
                                {2, 224}, {1, 640}, {1, 3},  {2, 16}, {5, 7}};
  std::vector<Sizes> out;
  for (const Guess& guess : kGuesses) {
    Sizes& sizes = out.emplace_back();
    for (const bool batch : is_batch) sizes.push_back(batch ? guess.batch : guess.other);
  }
  return out;
}

/// Sizes that the file's weights have, a few of them: a product wants one of its inputs.
Sizes sizes_of_weights(const Graph& graph) {
  constexpr size_t kMost = 24;
  std::vector<std::pair<ValueId, const Tensor*>> constants;
  for (const auto& [id, tensor] : graph.constants) constants.emplace_back(id, &tensor);
  std::ranges::sort(constants);  // as the file has them
  Sizes out;
  for (const auto& [id, tensor] : constants) {
    if (tensor->shape.rank() > 4 || tensor->dtype == DType::kI64) continue;  // those are shapes and indices
    for (const int64_t size : tensor->shape) {
      if (out.size() < kMost && size > 1 && std::ranges::find(out, size) == out.end()) out.push_back(size);
    }
  }
  return out;
}

/// What is tried next: those sizes for all dimensions but the first, then for the first as well.
std::vector<Sizes> known_sizes(const std::vector<bool>& is_batch, const Sizes& known) {
  constexpr size_t kMost = 64;
  std::vector<Sizes> out;
  Sizes batches{2};
  batches.insert(batches.end(), known.begin(), known.end());
  for (const int64_t batch : batches) {
    for (const int64_t other : known) {
      if (out.size() == kMost) return out;
      Sizes& sizes = out.emplace_back();
      for (const bool first : is_batch) sizes.push_back(first ? batch : other);
    }
  }
  return out;
}

/// What is tried where none of those fits: a long window needs a long signal, and may stand beside one channel. The
/// more dimensions, the fewer sizes for each, the first of the list.
std::vector<Sizes> different_sizes(const std::vector<bool>& is_batch) {
  constexpr int64_t kSizes[] = {1, 640, 3, 4'096, 64, 16'001, 100'003, 16};
  constexpr size_t kMost = 64;
  const auto others = static_cast<size_t>(std::ranges::count(is_batch, false));
  size_t choices = std::size(kSizes);
  while (choices > 2 && std::pow(choices, others) > kMost) --choices;
  const auto count = static_cast<size_t>(std::min<double>(std::pow(choices, others), kMost));
  std::vector<Sizes> out;
  for (size_t n = 0; n < count; ++n) {
    Sizes& sizes = out.emplace_back();
    size_t rest = n;
    for (const bool batch : is_batch) {
      sizes.push_back(batch ? 1 : kSizes[rest % choices]);
      if (!batch) rest /= choices;
    }
  }
  return out;
}

}  // namespace

/// Compiles for guessed sizes of the free dimensions: shows what is not supported before the first request does, and
/// tells the outputs' types and which of their dimensions are free.
void Model::probe() {
  std::vector<bool> is_batch;  // of each free dimension
  for (const PortSpec& in : inputs_) {
    for (size_t i = 0; i < in.shape.rank(); ++i) {
      if (in.shape[i] == Shape::kFree) is_batch.push_back(i == 0);
    }
  }
  const bool all_fixed = is_batch.empty();
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
  bool fits = false;
  std::optional<Error> failure, too_large;
  const auto attempt = [&](const Sizes& sizes) {
    std::vector<InputFacts> facts;
    auto size = sizes.begin();
    for (const PortSpec& in : inputs_) {
      Shape shape = in.shape;
      for (size_t i = 0; i < shape.rank(); ++i) {
        if (shape[i] == Shape::kFree) shape[i] = *size++;
      }
      facts.push_back({in.dtype, shape, nullptr, true, in.sequence});
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
    } catch (const Error& error) {
      // What is not supported is so whatever the sizes; what does not fit may fit with others.
      if (error.code() == ErrorCode::kUnsupportedOp || all_fixed || dynamic_cast<const WrongNode*>(&error)) throw;
      if (!failure) failure = error;
      if (!too_large && dynamic_cast<const PlanTooLarge*>(&error)) too_large = error;
    }
  };
  for (const Sizes& sizes : equal_sizes(is_batch)) {
    attempt(sizes);
    if (all_fixed || seen.size() == 3) break;
  }
  if (!fits && needed) {
    std::vector<Sizes> more = known_sizes(is_batch, sizes_of_weights(file_.graph));
    for (Sizes& sizes : different_sizes(is_batch)) more.push_back(std::move(sizes));
    for (const Sizes& sizes : stoppable(more)) {
      attempt(sizes);
      if (fits) break;
    }
  }
  plans_.trim();
  if (!fits && too_large) throw *too_large;
  const std::vector<FarShapes> far = all_fixed || trial.staged ? std::vector<FarShapes>() : look_far();
  for (size_t o = 0; o < outputs_.size(); ++o) {
    const Value& declared = file_.graph.values[static_cast<size_t>(file_.graph.outputs[o])];
    if (declared.list) continue;
    if (seen.empty()) {
      if (declared.shape && declared.dtype) continue;
      if (failure && !fits) throw *failure;
      throw Error(ErrorCode::kUnsupportedOp,
                  cat("output '", outputs_[o].name,
                      "' declares no type and shape, and a trial run on zeros, which would show them, failed: ",
                      trial.failure, "; declare them in the model file"));
    }
    // On zeros a loop may make no iteration, and its body tell no type.
    outputs_[o].dtype = trial.staged && declared.dtype ? *declared.dtype : seen[0][o].dtype;
    Shape shape = seen[0][o].shape;
    for (const auto& ports : seen) {
      for (size_t i = 0; i < shape.rank() && ports[o].shape.rank() == shape.rank(); ++i) {
        if (ports[o].shape[i] != shape[i]) shape[i] = Shape::kFree;
      }
    }
    if (o < far.size()) believe(shape, far[o], declared.shape);
    // One sample of a graph with free inputs says little, zeros say less: there the declaration, if any, knows better.
    const bool unsure = trial.staged || (!all_fixed && seen.size() == 1);
    if (unsure && declared.shape && declared.shape->rank() == shape.rank()) {
      shape = *declared.shape;
    } else if (unsure) {
      for (size_t i = 0; i < shape.rank(); ++i) shape[i] = Shape::kFree;
    }
    outputs_[o].shape = shape;
  }
}

}  // namespace inferkit
