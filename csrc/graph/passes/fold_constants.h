// Evaluates, once at load, the nodes whose inputs are all constants. How to evaluate is the engine's business.
#pragma once
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "graph/ir.h"

namespace inferkit {

/// The outputs of a node from its inputs (nullptr: left out), one for each of node.outputs; nullopt where it cannot.
using ConstEvaluator =
    std::function<std::optional<std::vector<Tensor>>(const Node& node, std::span<const Tensor* const> inputs)>;

/// Nodes that are random, have subgraphs, or whose result passes `max_bytes` and outgrows their inputs are left alone.
/// Returns whether anything was folded. Constant nodes are lifted first (see lift_constants).
bool fold_constants(Graph& graph, const ConstEvaluator& evaluate, size_t max_bytes = size_t{64} << 20);

}  // namespace inferkit
