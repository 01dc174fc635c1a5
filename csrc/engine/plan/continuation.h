// What is left of a graph after a plan, where shapes depend on values that the plan computes. A run goes from plan to
// plan: each is compiled for the values and shapes that the ones before it gave, and kept for the next run that gets
// the same. Values keep their ids from the graph on.
#pragma once
#include <cstdint>
#include <vector>

#include "graph/ir.h"

namespace inferkit {

/// A value that is an output of the model, or only of a plan (output < 0).
struct PlanResult {
  ValueId value = kNoValue;
  int output = -1;
};

/// Immutable once its plan is built.
struct Continuation {
  uint64_t serial = 0;               // tells it from every other in the process
  std::vector<Node> dynamic;         // run first, in order, on values
  std::vector<PlanResult> computed;  // outputs of the model that the dynamic nodes compute
  Graph rest;                        // then compile this; without nodes the run is over
  std::vector<int> outputs;          // which output of the model each of rest.outputs is
  std::vector<size_t> known;         // indices into rest.inputs: those whose values the compilation needs

  bool ends() const { return rest.nodes.empty(); }
};

}  // namespace inferkit
