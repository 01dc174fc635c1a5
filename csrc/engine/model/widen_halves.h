// Models in float16 or bfloat16: kept so in the file and at the edges, computed in float32.
#pragma once
#include "graph/ir.h"

namespace inferkit {

/// Whether the graph of a file, with all its outputs, is to be widened: it has half types and computes with them; not
/// where it only moves values, where outputs' types are not declared, or where it looks at the bits, digits or types of
/// halves (BitCast, Cast to strings, CastLike, QuantizeLinear that divides in a half type).
bool can_widen_halves(const Graph& graph);

/// Has such a graph, or what was chosen of it, compute in float32 all that it says in float16 and bfloat16: its
/// constants are widened once, its inputs when they come, its outputs rounded when they go. Results are nearer to the
/// exact ones, since nothing between is rounded or overflows but where the file casts to a half type, and the kernels
/// for float32 run. Tables that are only gathered from stay as they are; what is gathered is widened. Before
/// expand_nodes, and after constants are lifted.
void widen_halves(Graph& graph);

}  // namespace inferkit
