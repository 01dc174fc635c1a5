// A graph that a model may change while another keeps its own.
#pragma once
#include "graph/ir.h"

namespace inferkit {

/// A copy with subgraphs of its own; the bytes of its tensors are shared. Throws Stopped where the work is to stop.
Graph copy_graph(const Graph& graph);

/// The same of all that a file says.
ModelFile copy_model(const ModelFile& file);

}  // namespace inferkit
