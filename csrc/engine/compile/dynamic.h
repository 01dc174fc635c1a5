// Operators that run between two plans, on values: those whose outputs' shapes depend on data, and those that run
// subgraphs.
#pragma once
#include <span>
#include <vector>

#include "graph/ir.h"
#include "graph/op_schema.h"

namespace inferkit {

/// What a dynamic operator may use.
class DynamicContext {
 public:
  virtual ~DynamicContext() = default;
  /// Runs a subgraph of the node that is running: `inputs` in the order of its inputs, the values that it captures are
  /// added. Its outputs in order, each owning its memory.
  virtual std::vector<Tensor> run_subgraph(const Graph& subgraph, std::span<const Tensor> inputs) = 0;
  /// A tensor of the buffer pool's memory, uninitialised; `*data` is where to write it. Throws PlanTooLarge where the
  /// run holds too much.
  virtual Tensor allocate(DType dtype, const Shape& shape, void** data) = 0;
  /// What one plan of this run may take.
  virtual size_t max_bytes() const = 0;
  /// Throws where the run has made more iterations than it may.
  virtual void count_iteration() = 0;
  /// Before work that takes about `nanos`. Throws where the run has less time left, as the runs have that are made when
  /// a model is loaded.
  virtual void spend(int64_t nanos) = 0;
};

/// The outputs of a node (every one that its operator has, wanted or not) from its inputs, whose values are all there:
/// c.input(i).constant. Throws Error.
using DynamicFn = std::vector<Tensor> (*)(const NodeContext& c, DynamicContext& run);

/// The DynamicFn of operators whose shape rule, and lowering, do all once the values are known.
std::vector<Tensor> run_on_values(const NodeContext& c, DynamicContext& run);

}  // namespace inferkit
