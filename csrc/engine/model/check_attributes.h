// Nodes whose attributes alone tell that they cannot be run, whatever the sizes of the model's inputs are: what no
// guess at free dimensions reaches (a node behind one that these sizes do not fit, the body of a loop that does not go
// round) would else fail at every request.
#pragma once
#include <string>
#include <vector>

#include "graph/ir.h"

namespace inferkit {

/// Asks the rule of every node, those of subgraphs included, without inputs. Adds a line to `unsupported` for each that
/// inferkit lacks; throws Error(kModel) where a node is wrong.
void check_attributes(const Graph& graph, std::vector<std::string>& unsupported);

}  // namespace inferkit
