// Graph + concrete input shapes -> plan: infer shapes, fold what the shapes decide, lower what is needed, place memory.
#pragma once
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/lower.h"
#include "engine/plan.h"
#include "graph/ir.h"

namespace inferkit {

/// Every operator of `graph` (subgraphs included) that no family registers, one line each; empty where all are there.
std::vector<std::string> missing_operators(const Graph& graph);
/// Throws Error(kModel) where a node has more or fewer inputs or outputs than its operator: passes rely on it.
void check_arities(const Graph& graph);
/// One kUnsupportedOp error that lists `lines`.
Error unsupported_error(std::span<const std::string> lines);

/// Compiles `graph` for inputs of these dtypes and shapes. Throws Error(kModel) where the graph contradicts itself for
/// them, and Error(kUnsupportedOp) that lists every node that cannot be run.
std::shared_ptr<const Plan> compile(const Graph& graph, std::span<const Port> inputs, ModelCache& cache);

/// Runs one node on constants. Empty where it cannot be done (an operator that is not there, a value that would pass
/// `max_bytes`); throws where the node is wrong.
std::vector<Tensor> evaluate_node(const Node& node, std::span<const Tensor* const> inputs, size_t max_bytes);

}  // namespace inferkit
