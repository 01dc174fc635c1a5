// Operators that draw random numbers, and what their draws are known by where the file gives no seed.
#pragma once
#include <string_view>

#include "graph/ir.h"

namespace inferkit {

/// Whether the node may draw: what it gives is no function of its inputs, and is never computed before a run.
bool draws(const Node& node);

/// The attribute that number_draws gives: the node's place among those that draw.
inline constexpr std::string_view kDrawPlace = "inferkit.draw_place";

/// Numbers the nodes that draw, those of subgraphs too, in the order of the graph: as it is read, so that neither what
/// is chosen of it nor what is rewritten changes a draw.
void number_draws(Graph& graph);

}  // namespace inferkit
