// Whether the rows of a run depend on each other, so that a batcher must keep requests apart.
#include "engine/compile/row_mixing.h"

#include <algorithm>

#include "engine/compile/op_registry.h"
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

/// Of sizes that are guessed until some fit. Models of signals want long ones.
std::string Model::find_mixing() {
  if (std::string label = mixes_by_definition(file_.graph); !label.empty()) return label;
  const bool any_rank = std::ranges::any_of(inputs_, &PortSpec::any_shape);
  if (has_lists_ || any_rank) return {};  // no batcher takes it
  struct Guess {
    int64_t few, many, other;
  };
  constexpr Guess kGuesses[] = {{2, 3, 2},   {2, 3, 32},     {2, 3, 64},          {2, 3, 1}, {2, 3, 128},
                                {2, 3, 224}, {2, 3, 3},      {2, 3, 16},          {3, 5, 7}, {2, 3, 640},
                                {64, 96, 2}, {640, 960, 64}, {16'000, 24'000, 64}};
  for (const Guess& guess : kGuesses) {
    std::vector<InputFacts> one, few, many;
    bool has_rows = false;
    for (const PortSpec& in : inputs_) {
      Shape shape = in.shape;
      for (size_t i = 1; i < shape.rank(); ++i) {
        if (shape[i] == Shape::kFree) shape[i] = guess.other;
      }
      const bool grows = shape.rank() > 0 && shape[0] == Shape::kFree;
      has_rows |= grows;
      for (const auto& [facts, rows] : {std::pair{&one, int64_t{1}}, {&few, guess.few}, {&many, guess.many}}) {
        if (grows) shape[0] = rows;
        facts->push_back({in.dtype, shape, nullptr});
      }
    }
    if (!has_rows) return {};
    try {
      return find_mixing_node(file_.graph, one, few, many, *packed_,
                              {.max_run_bytes = options_.max_run_bytes, .threads = options_.threads});
    } catch (const Stopped&) {
      throw;
    } catch (const Error&) {  // they do not fit
    }
  }
  return {};
}

}  // namespace inferkit
