// Models in float16 or bfloat16: kept so in the file and at the edges, computed in float32.
#pragma once
#include "graph/ir.h"

namespace inferkit {

/// Has the graph compute in float32 all that it says in float16 and bfloat16: its constants are widened once, its
/// inputs when they come, its outputs rounded when they go. Results are nearer to the exact ones, since nothing between
/// is rounded or overflows, and the kernels for float32 run. Tables that are only gathered from stay as they are; what
/// is gathered is widened. Leaves a graph alone that has no half types, that only moves values, whose outputs' types
/// are not declared, or that looks at the bits or digits of halves (BitCast, Cast to strings, QuantizeLinear that is
/// told to divide in a half type). Before expand_nodes, and after constants are lifted.
void widen_halves(Graph& graph);

}  // namespace inferkit
