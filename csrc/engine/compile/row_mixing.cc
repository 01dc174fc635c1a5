#include "engine/compile/row_mixing.h"

#include <algorithm>
#include <vector>

#include "engine/compile/compiler.h"
#include "graph/passes/pattern.h"
#include "graph/topological_sort.h"
#include "platform/float_environment.h"
#include "platform/stoppable.h"

namespace inferkit {
namespace {

/// What a node's input or output is in both compilations.
struct Pair {
  const TensorFacts* few = nullptr;
  const TensorFacts* many = nullptr;

  /// Whether it is there, and data of the run in both.
  bool is_data() const { return few && many && !few->constant && !many->constant; }
  bool is_unknown() const { return !few || !many; }

  Axes growing() const {
    Axes out = 0;
    const size_t rank = few->shape.rank();
    if (rank != many->shape.rank()) return 0;
    for (size_t i = 0; i < rank; ++i) {
      if (few->shape[i] != many->shape[i]) out = static_cast<Axes>(out | 1u << i);
    }
    return out;
  }
  /// Whether this grows by a smaller factor than `from` does. Numbers of elements are below 2^63: their products fit.
  bool grows_less_than(const Pair& from) const {
    const auto count = [](const TensorFacts* facts) { return static_cast<__int128>(facts->shape.elements()); };
    return count(many) * count(from.few) < count(few) * count(from.many);
  }
};

class Search {
 public:
  Search(const Compiler& few, const Compiler& many) : few_(few), many_(many), read_(few.graph().values.size(), false) {
    const Graph& graph = few.graph();
    for (const ValueId id : graph.outputs) read_[static_cast<size_t>(id)] = true;
    for (const Node& node : stoppable(graph.nodes)) {
      for_each_read(node, [&](ValueId id) { read_[static_cast<size_t>(id)] = true; });
    }
  }

  bool mixes(const Node& node) {
    const OpDef* def = OpRegistry::instance().find(node.domain, node.op_type, node.version);
    if (!def) return false;
    std::vector<Pair> inputs;
    std::vector<const TensorFacts*> in;
    for (const ValueId id : node.inputs) {
      inputs.push_back(pair(id));
      if (id != kNoValue && inputs.back().is_unknown()) return false;
      in.push_back(inputs.back().few);
    }
    const NodeContext context(node, in, {});
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (!inputs[i].is_data()) continue;
      const Axes growing = inputs[i].growing();
      if (growing == 0) continue;
      if (def->schema.mixed_axes && (growing & def->schema.mixed_axes(context, i))) return true;
      for (const ValueId id : node.outputs) {
        if (id == kNoValue || !read_[static_cast<size_t>(id)]) continue;
        const Pair out = pair(id);
        if (out.is_data() && out.grows_less_than(inputs[i])) return true;
      }
    }
    return false;
  }

 private:
  Pair pair(ValueId id) const { return {few_.facts(id), many_.facts(id)}; }

  const Compiler& few_;
  const Compiler& many_;
  std::vector<bool> read_;
};

/// A node that makes the tensors of a sequence of the rows, which may then be combined in any way; "" where there is
/// none.
std::string splits_rows(const Graph& graph, const Compiler& few, const Compiler& many) {
  for (const Node& node : stoppable(graph.nodes)) {
    if (!is_op(node, "SplitToSequence") || node.inputs.empty() || node.inputs[0] == kNoValue) continue;
    const Pair x{few.facts(node.inputs[0]), many.facts(node.inputs[0])};
    if (x.is_unknown()) continue;
    const auto rank = static_cast<int64_t>(x.few->shape.rank());
    const int64_t axis = int_attr(node, "axis", 0);
    if (axis >= -rank && axis < rank && (x.growing() >> (axis < 0 ? axis + rank : axis) & 1) != 0) return node.label();
  }
  return {};
}

}  // namespace

std::string find_mixing_node(const Graph& graph, std::span<const InputFacts> few, std::span<const InputFacts> many,
                             ModelCache& cache, const CompileOptions& options) {
  const FloatEnvironment ours;
  Compiler a(graph, few, cache, options, /*fold=*/true), b(graph, many, cache, options, /*fold=*/true);
  a.infer({});
  b.infer({});
  if (std::string label = splits_rows(graph, a, b); !label.empty()) return label;
  // Where a condition that the shapes decide chose other branches, their nodes are not each other's.
  if (a.graph().nodes.size() != b.graph().nodes.size()) return {};
  Search search(a, b);
  for (const Node& node : stoppable(a.graph().nodes)) {
    if (search.mixes(node)) return node.label();
  }
  return {};
}

}  // namespace inferkit
