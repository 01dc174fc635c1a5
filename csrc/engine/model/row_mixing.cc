// Whether the rows of a run depend on each other, so that a batcher must keep requests apart.
#include "engine/compile/row_mixing.h"

#include <algorithm>
#include <iterator>
#include <optional>

#include "engine/compile/op_registry.h"
#include "engine/model/guess_sizes.h"
#include "engine/model/model.h"
#include "graph/draws.h"
#include "platform/stoppable.h"

namespace inferkit {
namespace {

bool mixes_by_definition(const Node& node, const Graph& graph) {
  const OpDef* def = OpRegistry::instance().find(node.domain, node.op_type, node.version);
  return def && def->schema.rows_mix && !node.inputs.empty() && !graph.constant(node.inputs[0]) &&
         def->schema.rows_mix(node, graph);
}

/// A node that takes all rows together, by its definition, of what comes from the inputs; "" where there is none.
std::string mixes_by_definition(const Graph& graph) {
  for (const Node& node : stoppable(graph.nodes)) {
    if (mixes_by_definition(node, graph)) return node.label();
    for (const auto& [name, attribute] : node.attributes) {
      const auto* body = std::get_if<std::shared_ptr<Graph>>(&attribute);
      if (!body) continue;
      if (std::string label = mixes_by_definition(**body); !label.empty()) return label;
    }
  }
  return {};
}

/// Whether there is an If in it, or in a graph within it.
bool has_branches(const Graph& graph) {
  for (const Node& node : stoppable(graph.nodes)) {
    if (node.op_type == "If") return true;
    for (const auto& [name, attribute] : node.attributes) {
      const auto* body = std::get_if<std::shared_ptr<Graph>>(&attribute);
      if (body && has_branches(**body)) return true;
    }
  }
  return false;
}

}  // namespace

/// Whether a node draws something for each row of a run.
bool Model::draws_rows(const Graph& graph) const {
  const int64_t fixed = inputs_.empty() || inputs_[0].shape.empty() ? Shape::kFree : inputs_[0].shape[0];
  for (const Node& node : stoppable(graph.nodes)) {
    if (draws(node) && !node.inputs.empty() && mixes_by_definition(node, graph)) return true;
    if (draws(node) && node.inputs.empty() && fixed > 1) {  // of a shape of its own, which may be that of the rows
      const auto it = node.attributes.find("shape");
      const auto* shape = it == node.attributes.end() ? nullptr : std::get_if<std::vector<int64_t>>(&it->second);
      if (shape && std::ranges::find(*shape, fixed) != shape->end()) return true;
    }
    for (const auto& [name, attribute] : node.attributes) {
      const auto* body = std::get_if<std::shared_ptr<Graph>>(&attribute);
      if (body && draws_rows(**body)) return true;
    }
  }
  return false;
}

/// The free dimensions but the first, each as the number of a group that has one size: those of the same place in
/// inputs whose names differ in a number alone, as in the caches of a decoder's layers.
Model::FreeDims Model::free_dims() const {
  FreeDims out;
  std::vector<std::pair<std::string, size_t>> groups;
  for (const PortSpec& in : inputs_) {
    std::string name = in.name;
    std::erase_if(name, [](char c) { return c >= '0' && c <= '9'; });
    for (size_t i = 1; i < in.shape.rank(); ++i) {
      if (in.shape[i] != Shape::kFree) continue;
      const auto it = std::ranges::find(groups, std::pair(name, i));
      out.group.push_back(static_cast<size_t>(it - groups.begin()));
      if (it == groups.end()) groups.emplace_back(name, i);
    }
  }
  out.groups = groups.size();
  return out;
}

namespace {

bool has_rows(const PortSpec& in) { return in.shape.rank() > 0 && in.shape[0] == Shape::kFree; }

/// Numbers of rows, and the size of all other dimensions that are free. Models of signals want long ones; what is
/// appended to a cache is masked by both lengths together.
struct Guess {
  int64_t few, many, other;
};
constexpr Guess kGuesses[] = {{2, 3, 2},   {2, 3, 32},     {2, 3, 64},          {2, 3, 1}, {2, 3, 128},
                              {2, 3, 224}, {2, 3, 3},      {2, 3, 16},          {3, 5, 7}, {2, 3, 640},
                              {64, 96, 2}, {640, 960, 64}, {16'000, 24'000, 64}};

/// Sizes for each group of them, where one for all did not fit.
std::vector<Sizes> other_sizes(const Graph& graph, size_t groups) {
  std::vector<Sizes> out;
  for (const int64_t size : sizes_of_weights(graph)) out.emplace_back(groups, size);
  constexpr size_t kMostSums = 6;
  for (size_t n = 1; groups <= kMostSums && n + 1 < size_t{1} << groups; ++n) {
    Sizes& sizes = out.emplace_back();
    for (size_t i = 0; i < groups; ++i) sizes.push_back((n >> i & 1) != 0 ? 4 : 2);
  }
  std::ranges::move(different_sizes(std::vector<bool>(groups, false)), std::back_inserter(out));
  return out;
}

}  // namespace

/// Finds the inputs that are for all rows: their first dimension is fixed, that of others is free, and the model takes
/// any number of rows beside them. That is no proof where one of them is one row, or grows with the batch along
/// another axis, and is broadcast: so sizes of 1 say nothing. Where one of them may be more than requests can be told
/// apart by, none is: its first dimension is the number of rows, then.
void Model::find_shared() {
  const auto is_fixed = [](const PortSpec& in) { return !in.shape.empty() && !has_rows(in) && !in.shared; };
  const auto is_long = [&](const PortSpec& in) {
    const std::optional<int64_t> elements = in.shape.is_concrete() ? in.shape.checked_elements() : std::nullopt;
    return is_fixed(in) && (!elements || static_cast<size_t>(*elements) > kMostSharedBytes / dtype_size(in.dtype));
  };
  const bool mixed = std::ranges::any_of(inputs_, has_rows) && std::ranges::any_of(inputs_, is_fixed);
  if (!mixed || has_lists_ || std::ranges::any_of(inputs_, &PortSpec::any_shape)) return;
  if (std::ranges::any_of(inputs_, is_long)) return;
  const FreeDims dims = free_dims();
  std::optional<bool> fits;  // the first sizes that one row fits decide
  const auto ask = [&](const Sizes& sizes, int64_t few, int64_t many) {
    if (!fits && std::ranges::find(sizes, 1) == sizes.end()) fits = takes_any_rows(dims, sizes, few, many);
  };
  for (const Guess& g : kGuesses) ask(Sizes(dims.groups, g.other), g.few, g.many);
  for (const Sizes& sizes : fits ? std::vector<Sizes>() : other_sizes(file_.graph, dims.groups)) ask(sizes, 2, 3);
  if (!fits.value_or(false)) return;
  for (PortSpec& in : inputs_) in.shared = in.shared || is_fixed(in);
}

/// Of sizes that are guessed until some fit.
std::string Model::find_mixing() {
  if (std::string label = mixes_by_definition(file_.graph); !label.empty()) return label;
  const bool any_rank = std::ranges::any_of(inputs_, &PortSpec::any_shape);
  if (has_lists_ || any_rank) return {};  // no batcher takes it
  if (std::ranges::none_of(inputs_, has_rows)) return {};
  const FreeDims dims = free_dims();
  std::optional<std::string> found;
  for (const Guess& g : kGuesses) {
    if ((found = mixing_of(dims, Sizes(dims.groups, g.other), g.few, g.many))) return *found;
  }
  for (const Sizes& sizes : other_sizes(file_.graph, dims.groups)) {
    if ((found = mixing_of(dims, sizes, 2, 3))) return *found;
  }
  return "a node";  // none fits, and who knows
}

namespace {

/// `group` and `sizes` tell those of all free dimensions but the first.
RowSamples samples_of(std::span<const PortSpec> inputs, std::span<const size_t> group, const Sizes& sizes, int64_t few,
                      int64_t many) {
  constexpr int64_t kLots = 11;
  RowSamples samples;
  size_t next = 0;
  for (const PortSpec& in : inputs) {
    Shape shape = in.shape;
    for (size_t i = 1; i < shape.rank(); ++i) {
      if (shape[i] == Shape::kFree) shape[i] = sizes[group[next++]];
    }
    const bool grows = has_rows(in);
    const auto add = [&](std::vector<InputFacts>& sample, int64_t rows) {
      if (grows) shape[0] = rows;
      sample.push_back({in.dtype, shape, nullptr});
    };
    add(samples.one, 1);
    add(samples.few, few);
    add(samples.many, many);
    add(samples.lots, many * kLots);
  }
  return samples;
}

}  // namespace

std::optional<bool> Model::takes_any_rows(const FreeDims& dims, const Sizes& sizes, int64_t few, int64_t many) {
  return fits_any_rows(file_.graph, samples_of(inputs_, dims.group, sizes, few, many), *packed_,
                       {.max_run_bytes = options_.max_run_bytes, .threads = options_.threads});
}

/// What is found with those sizes of the groups; nullopt where they do not fit.
std::optional<std::string> Model::mixing_of(const FreeDims& dims, const Sizes& sizes, int64_t few, int64_t many) {
  const RowSamples samples = samples_of(inputs_, dims.group, sizes, few, many);
  CompileOptions options{.max_run_bytes = options_.max_run_bytes, .threads = options_.threads};
  try {
    for (const auto branch : {CompileOptions::Imagined::kThen, CompileOptions::Imagined::kElse}) {
      options.imagined = branch;
      if (std::string label = find_mixing_node(file_.graph, samples, *packed_, options); !label.empty()) return label;
      if (!has_branches(file_.graph)) break;
    }
    return "";
  } catch (const Stopped&) {
    throw;
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace inferkit
