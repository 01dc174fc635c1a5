#include "graph/passes/fold_constants.h"

#include "graph/draws.h"
#include "graph/passes/passes.h"
#include "graph/passes/pattern.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

size_t bytes_of(const Tensor& t) {
  if (t.dtype != DType::kString) return t.bytes();
  size_t bytes = 0;
  for (int64_t i = 0; i < t.shape.elements(); ++i)
    bytes += sizeof(std::string_view) + t.as<std::string_view>()[i].size();
  return bytes;
}

/// The inputs of the node where all of them are constant (nullptr: left out), and there is at least one.
std::optional<std::vector<const Tensor*>> constant_inputs(const Graph& graph, const Node& node) {
  std::vector<const Tensor*> out;
  bool any = false;
  for (const ValueId id : node.inputs) {
    out.push_back(id == kNoValue ? nullptr : graph.constant(id));
    if (id != kNoValue && !out.back()) return std::nullopt;
    any |= id != kNoValue;
  }
  return any ? std::optional(std::move(out)) : std::nullopt;
}

/// What a node of a branch or of a loop's body makes, which a run may never come to: a wrong one is told of where it
/// does.
std::optional<std::vector<Tensor>> where_right(const ConstEvaluator& evaluate, const Node& node,
                                               std::span<const Tensor* const> inputs) {
  try {
    return evaluate(node, inputs);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kModel) throw;
    return std::nullopt;
  }
}

bool fold(Graph& graph, const ConstEvaluator& evaluate, size_t max_bytes, bool is_within = false) {
  Rewriter r(graph);
  bool in_subgraphs = false;
  for (const int n : r.nodes()) {
    RunControl::check();
    const Node& node = r.node(n);
    bool has_subgraph = false;
    for_each_subgraph(graph.nodes[static_cast<size_t>(n)], [&](Graph&) { has_subgraph = true; });
    const auto inputs = constant_inputs(graph, node);
    if (has_subgraph || !inputs || draws(node)) continue;
    const auto results = is_within ? where_right(evaluate, node, *inputs) : evaluate(node, *inputs);
    if (!results || results->size() != node.outputs.size()) continue;
    size_t before = 0, after = 0;
    for (const Tensor* t : *inputs) before += t ? bytes_of(*t) : 0;
    for (const Tensor& t : *results) after += bytes_of(t);
    if (after > max_bytes && after > before) continue;
    for (size_t i = 0; i < results->size(); ++i) {
      const ValueId id = node.outputs[i];
      if (id == kNoValue) continue;
      Value& value = graph.values[static_cast<size_t>(id)];
      value.dtype = (*results)[i].dtype;
      value.shape = (*results)[i].shape;
      graph.constants.emplace(id, (*results)[i]);
    }
    r.remove(n);
  }
  bool changed = r.finish();
  changed |= lift_constants(graph);  // into the subgraphs that capture what was folded
  for_each_subgraph(graph, [&](Graph& sub) { in_subgraphs |= fold(sub, evaluate, max_bytes, true); });
  return changed | in_subgraphs;
}

}  // namespace

bool fold_constants(Graph& graph, const ConstEvaluator& evaluate, size_t max_bytes) {
  const bool lifted = lift_constants(graph);
  const bool folded = fold(graph, evaluate, max_bytes);
  return lifted | folded;
}

}  // namespace inferkit
