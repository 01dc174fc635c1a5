// The element types that a graph tells without a run: by constants, inputs and what operators give whatever comes in.
#pragma once
#include <optional>
#include <vector>

#include "graph/ir.h"

namespace inferkit {

/// For each output of the graph, as it stands in the file: its element type, or nothing where neither an operator nor
/// the file tells one. Empty where the file declares all of them. Linear in the size of the graph.
std::vector<std::optional<DType>> told_types(const Graph& graph);

}  // namespace inferkit
