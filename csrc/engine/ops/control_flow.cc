// If, Loop and Scan. An If becomes the nodes of the branch that its condition selects, before anything is lowered.
// Loops run between plans: their bodies are graphs with plans of their own.
#include <algorithm>
#include <cstring>
#include <limits>

#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

const Graph& subgraph_of(const NodeContext& c, const char* name) {
  const auto it = c.node().attributes.find(name);
  const auto* graph = it == c.node().attributes.end() ? nullptr : std::get_if<std::shared_ptr<Graph>>(&it->second);
  if (!graph) c.fail(cat("the attribute '", name, "' must be a graph"));
  return **graph;
}

void require_bool(const NodeContext& c, size_t i) {
  if (c.has_input(i) && c.knows(i) && c.input(i).dtype != DType::kBool) {
    c.wrong(cat("the condition must be one bool, not ", dtype_name(c.input(i).dtype)));
  }
}

bool truth(const NodeContext& c, const Tensor& value) {
  if (value.dtype != DType::kBool || value.shape.elements() != 1) {
    c.fail(cat("the condition must be one bool, not ", dtype_name(value.dtype), " of shape ", value.shape.str()));
  }
  return *value.as<bool>();
}

const Graph& select_branch(const NodeContext& c) {
  const Graph &then_branch = subgraph_of(c, "then_branch"), &else_branch = subgraph_of(c, "else_branch");
  require_bool(c, 0);
  return truth(c, c.known_value(0)) ? then_branch : else_branch;
}

/// What iterations append: one tensor of all of them in the end. Until then each is held as the body gave it, so that
/// the run's budget of memory counts it.
class Stack {
 public:
  void add(const NodeContext& c, Tensor value) {
    if (value.list) c.fail("the body gives a sequence, which cannot be stacked");
    if (!parts_.empty() && (value.dtype != parts_[0].dtype || !(value.shape == parts_[0].shape))) {
      c.fail(cat("the body gives a tensor of shape ", value.shape.str(), " to be stacked on ", parts_[0].shape.str()));
    }
    parts_.push_back(std::move(value));
  }
  /// Stacked along a new axis; `none` is what it is a stack of where there was no iteration.
  Tensor tensor(const NodeContext& c, const TensorFacts& none, int64_t axis, DynamicContext& run) const {
    const DType dtype = parts_.empty() ? none.dtype : parts_[0].dtype;
    Shape shape = parts_.empty() ? none.shape : parts_[0].shape;
    const auto at = static_cast<size_t>(axis);
    shape.insert(at, static_cast<int64_t>(parts_.size()));
    if (!shape.checked_elements()) c.fail(cat("the body declares an output that stacks to ", shape.str()));
    const auto inner = static_cast<size_t>(shape.elements(at + 1, shape.rank())) * dtype_size(dtype);
    const auto outer = static_cast<size_t>(shape.elements(0, at));
    void* data = nullptr;
    Tensor out = run.allocate(dtype, shape, &data);
    auto* to = static_cast<std::byte*>(data);
    for (size_t o = 0; o < outer && inner != 0; ++o) {
      for (const Tensor& part : parts_) {
        std::memcpy(to, static_cast<const std::byte*>(part.data) + o * inner, inner);
        to += inner;
      }
    }
    return out;
  }
  size_t rank(const TensorFacts& none) const { return (parts_.empty() ? none.shape : parts_[0].shape).rank(); }
  bool empty() const { return parts_.empty(); }
  void reverse() { std::reverse(parts_.begin(), parts_.end()); }

 private:
  std::vector<Tensor> parts_;
};

template <class T>
Tensor scalar(DynamicContext& run, T value) {
  void* data = nullptr;
  Tensor out = run.allocate(kDTypeOf<T>, {}, &data);
  std::memcpy(data, &value, sizeof(T));
  return out;
}

/// Types and shapes of the body's outputs from `first` on, for a loop that makes no iteration: as declared, or, where
/// that is not all, as one iteration would give them on `inputs`. What neither tells is float32, or empty.
std::vector<TensorFacts> untouched(const Graph& body, size_t first, std::span<const Tensor> inputs,
                                   DynamicContext& run) {
  std::vector<TensorFacts> out;
  bool whole = true;
  for (size_t i = first; i < body.outputs.size(); ++i) {
    const Value& declared = body.values[static_cast<size_t>(body.outputs[i])];
    TensorFacts& facts =
        out.emplace_back(TensorFacts{declared.dtype.value_or(DType::kF32), declared.shape.value_or(Shape{}), nullptr});
    whole = whole && declared.dtype && declared.shape && declared.shape->is_concrete();
    for (size_t d = 0; d < facts.shape.rank(); ++d) {
      if (facts.shape[d] == Shape::kFree) facts.shape[d] = 0;
    }
  }
  if (whole) return out;
  try {
    const std::vector<Tensor> results = run.run_subgraph(body, inputs);
    for (size_t i = 0; i < out.size(); ++i) out[i] = {results[first + i].dtype, results[first + i].shape, nullptr};
  } catch (const Stopped&) {
    throw;
  } catch (const Error&) {
    // It is an iteration that nobody asked for: where it fails, the declaration has to do.
  }
  return out;
}

/// Only a run can tell how often they go round; what the node and its body say of each other shows before.
[[noreturn]] void only_a_run_tells(const NodeContext& c) {
  throw NeedsValue(0, cat(c.node().label(), ": only a run can tell the shapes of its outputs"));
}

// Loop: inputs trip count, condition, state...; the body takes iteration, condition, state... and gives condition,
// state..., and what is stacked.
struct LoopBody {
  const Graph& body;
  size_t states;
};
LoopBody loop_of(const NodeContext& c) {
  const Graph& body = subgraph_of(c, "body");
  const size_t states = c.input_count() < 2 ? 0 : c.input_count() - 2;
  if (body.outputs.size() < 1 + states || body.inputs.size() != 2 + states ||
      body.outputs.size() - 1 < c.node().outputs.size()) {
    c.fail(cat("the body has ", counted(body.inputs.size(), "input"), " and ", counted(body.outputs.size(), "output"),
               ", for ", counted(states, "carried value"), " and ", counted(c.node().outputs.size(), "output"),
               " of the node"));
  }
  return {body, states};
}

void infer_loop(InferContext& c) {
  loop_of(c);
  require_bool(c, 1);
  if (c.has_input(0) && c.knows(0) && c.input(0).dtype != DType::kI64) c.wrong("the trip count must be one int64");
  only_a_run_tells(c);
}

std::vector<Tensor> run_loop(const NodeContext& c, DynamicContext& run) {
  const auto& [body, states] = loop_of(c);
  int64_t trips = std::numeric_limits<int64_t>::max();
  if (c.has_input(0)) {
    const Tensor& most = c.known_value(0);
    if (most.dtype != DType::kI64 || most.shape.elements() != 1) c.fail("the trip count must be one int64");
    trips = *most.as<int64_t>();
  }
  bool go_on = !c.has_input(1) || truth(c, c.known_value(1));
  std::vector<Tensor> carried(2 + states);
  for (size_t i = 0; i < states; ++i) carried[2 + i] = c.known_value(2 + i);
  std::vector<Stack> stacks(body.outputs.size() - 1 - states);
  for (int64_t trip = 0; trip < trips && go_on; ++trip) {
    run.count_iteration();
    carried[0] = scalar<int64_t>(run, trip);
    carried[1] = scalar<bool>(run, go_on);
    std::vector<Tensor> results = run.run_subgraph(body, carried);
    go_on = truth(c, results[0]);
    for (size_t i = 0; i < states; ++i) carried[2 + i] = std::move(results[1 + i]);
    for (size_t i = 0; i < stacks.size(); ++i) stacks[i].add(c, std::move(results[1 + states + i]));
  }
  std::vector<Tensor> out(carried.begin() + 2, carried.end());
  std::vector<TensorFacts> none(stacks.size());
  if (!stacks.empty() && stacks[0].empty()) {
    carried[0] = scalar<int64_t>(run, 0);
    carried[1] = scalar<bool>(run, true);
    none = untouched(body, 1 + states, carried, run);
  }
  for (size_t i = 0; i < stacks.size(); ++i) out.push_back(stacks[i].tensor(c, none[i], 0, run));
  return out;
}

/// Slices of a scan input, in the order of the scan.
class Slices {
 public:
  Slices(const Tensor& from, int64_t axis, bool backwards) : from_(from), backwards_(backwards) {
    const auto at = static_cast<size_t>(axis);
    count_ = from.shape[at];
    outer_ = from.shape.elements(0, at);
    inner_ = from.shape.elements(at + 1, from.shape.rank()) * static_cast<int64_t>(dtype_size(from.dtype));
    shape_ = from.shape;
    shape_.erase(at);
  }
  int64_t count() const { return count_; }
  /// One of zeros.
  Tensor blank(DynamicContext& run) const {
    void* data = nullptr;
    Tensor out = run.allocate(from_.dtype, shape_, &data);
    fill_in_blocks(static_cast<std::byte*>(data), static_cast<int64_t>(out.bytes()), std::byte{0});
    return out;
  }
  Tensor at(int64_t step, DynamicContext& run) const {
    const int64_t k = backwards_ ? count_ - 1 - step : step;
    const auto* bytes = static_cast<const std::byte*>(from_.data);
    if (outer_ == 1) return {from_.dtype, shape_, bytes + k * inner_, from_.owner};
    void* data = nullptr;
    Tensor out = run.allocate(from_.dtype, shape_, &data);
    for (int64_t o = 0; o < outer_ && inner_ != 0; ++o) {
      std::memcpy(static_cast<std::byte*>(data) + o * inner_, bytes + (o * count_ + k) * inner_,
                  static_cast<size_t>(inner_));
    }
    return out;
  }

 private:
  const Tensor& from_;
  const bool backwards_;
  int64_t count_ = 0, outer_ = 0, inner_ = 0;
  Shape shape_;
};

std::vector<int64_t> per_scan(const NodeContext& c, const char* name, size_t count) {
  std::vector<int64_t> out = c.attr_ints(name);
  if (out.empty()) out.assign(count, 0);
  if (out.size() != count)
    c.fail(cat("'", name, "' has ", counted(out.size(), "element"), " for ", counted(count, "tensor")));
  return out;
}

// Scan: inputs state..., scanned...; the body takes state..., slices... and gives state..., what is stacked.
struct ScanBody {
  const Graph& body;
  size_t states, scanned;
};
ScanBody scan_of(const NodeContext& c) {
  const Graph& body = subgraph_of(c, "body");
  const int64_t wanted = c.attr_int("num_scan_inputs", 0);
  if (wanted < 1 || static_cast<size_t>(wanted) > c.input_count()) {
    c.fail(cat("num_scan_inputs is ", wanted, " of ", counted(c.input_count(), "input")));
  }
  const auto scanned = static_cast<size_t>(wanted);
  const size_t states = c.input_count() - scanned;
  if (body.inputs.size() != c.input_count() || body.outputs.size() < states ||
      body.outputs.size() < c.node().outputs.size()) {
    c.fail(cat("the body has ", counted(body.inputs.size(), "input"), " and ", counted(body.outputs.size(), "output"),
               ", for ", counted(states, "state"), " and ", counted(scanned, "scanned input")));
  }
  return {body, states, scanned};
}

void infer_scan(InferContext& c) {
  const ScanBody scan = scan_of(c);
  for (const char* name : {"scan_input_axes", "scan_input_directions"}) per_scan(c, name, scan.scanned);
  for (const char* name : {"scan_output_axes", "scan_output_directions"}) {
    per_scan(c, name, scan.body.outputs.size() - scan.states);
  }
  only_a_run_tells(c);
}

/// A state goes from slice to slice, and a direction turns them round.
Axes mixed_by_scan(const NodeContext& c, size_t i) {
  const ScanBody scan = scan_of(c);
  bool turns = false;
  for (const char* name : {"scan_input_directions", "scan_output_directions"}) {
    for (const int64_t direction : c.attr_ints(name)) turns |= direction != 0;
  }
  if (i < scan.states || (scan.states == 0 && !turns)) return 0;
  const int64_t axis = per_scan(c, "scan_input_axes", scan.scanned)[i - scan.states];
  return one_axis(c.resolve_axis(axis, static_cast<int64_t>(c.input(i).shape.rank())));
}

std::vector<Tensor> run_scan(const NodeContext& c, DynamicContext& run) {
  const auto& [body, states, scanned] = scan_of(c);
  const auto axes = per_scan(c, "scan_input_axes", scanned);
  const auto directions = per_scan(c, "scan_input_directions", scanned);
  std::vector<Slices> slices;
  for (size_t i = 0; i < scanned; ++i) {
    const Tensor& from = c.known_value(states + i);
    if (from.list) c.fail(cat("input ", states + i, " is a sequence, which cannot be scanned"));
    const int64_t axis = c.resolve_axis(axes[i], static_cast<int64_t>(from.shape.rank()));
    slices.emplace_back(from, axis, directions[i] != 0);
    if (slices.back().count() != slices.front().count()) c.fail("the scanned inputs differ in length");
  }
  std::vector<Tensor> carried(body.inputs.size());
  for (size_t i = 0; i < states; ++i) carried[i] = c.known_value(i);
  std::vector<Stack> stacks(body.outputs.size() - states);
  for (int64_t step = 0; step < slices.front().count(); ++step) {
    run.count_iteration();
    for (size_t i = 0; i < scanned; ++i) carried[states + i] = slices[i].at(step, run);
    std::vector<Tensor> results = run.run_subgraph(body, carried);
    for (size_t i = 0; i < states; ++i) carried[i] = std::move(results[i]);
    for (size_t i = 0; i < stacks.size(); ++i) stacks[i].add(c, std::move(results[states + i]));
  }
  const auto out_axes = per_scan(c, "scan_output_axes", stacks.size());
  const auto out_directions = per_scan(c, "scan_output_directions", stacks.size());
  std::vector<Tensor> out(carried.begin(), carried.begin() + static_cast<std::ptrdiff_t>(states));
  std::vector<TensorFacts> none(stacks.size());
  if (!stacks.empty() && stacks[0].empty()) {
    for (size_t i = 0; i < scanned; ++i) carried[states + i] = slices[i].blank(run);
    none = untouched(body, states, carried, run);
  }
  for (size_t i = 0; i < stacks.size(); ++i) {
    if (out_directions[i] != 0) stacks[i].reverse();
    const auto rank = static_cast<int64_t>(stacks[i].rank(none[i])) + 1;
    out.push_back(stacks[i].tensor(c, none[i], c.resolve_axis(out_axes[i], rank), run));
  }
  return out;
}

}  // namespace

void register_control_flow(OpRegistry& r) {
  r.add_select({.name = "If", .min_inputs = 1, .max_inputs = 1}, select_branch);
  r.add_dynamic({.name = "Loop", .infer = infer_loop, .takes_lists = true}, nullptr, run_loop);
  r.add_dynamic({.name = "Scan",
                 .since = 9,
                 .min_inputs = 1,
                 .infer = infer_scan,
                 .mixed_axes = mixed_by_scan,
                 .takes_lists = true},
                nullptr, run_scan);
}

}  // namespace inferkit
