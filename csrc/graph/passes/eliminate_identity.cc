#include <numeric>

#include "graph/passes/passes.h"
#include "graph/passes/pattern.h"

namespace inferkit {
namespace {

/// ONNX's codes of the types that Rewriter::dtype tells apart with certainty.
std::optional<int64_t> onnx_code(std::optional<DType> dtype) {
  if (dtype == DType::kF32) return 1;
  if (dtype == DType::kI32) return 6;
  if (dtype == DType::kI64) return 7;
  if (dtype == DType::kBool) return 9;
  if (dtype == DType::kF64) return 11;
  return std::nullopt;
}

bool is_inference_dropout(const Rewriter& r, const Graph& graph, const Node& node) {
  if (!is_op(node, "Dropout")) return false;
  if (node.outputs.size() > 1 && node.outputs[1] != kNoValue && r.reads(node.outputs[1]) > 0) return false;
  if (node.version < 7) return int_attr(node, "is_test", 0) != 0;
  if (node.version < 12 || node.inputs.size() < 3 || node.inputs[2] == kNoValue) return true;
  const Tensor* training = graph.constant(node.inputs[2]);
  return training && training->dtype == DType::kBool && training->shape.elements() == 1 && !training->as<bool>()[0];
}

bool does_nothing(Rewriter& r, const Node& node) {
  if (node.inputs.empty() || node.inputs[0] == kNoValue || node.outputs.empty() || node.outputs[0] == kNoValue)
    return false;
  if (is_op(node, "Identity") || is_inference_dropout(r, r.graph(), node)) return true;
  return is_op(node, "Cast") && onnx_code(r.dtype(node.inputs[0])) == int_attr(node, "to", 0);
}

/// By value: is it an output of the graph?
std::vector<bool> outputs_of(const Graph& graph) {
  std::vector<bool> out(graph.values.size());
  for (const ValueId id : graph.outputs) out[static_cast<size_t>(id)] = true;
  return out;
}

/// Removes those whose output is no output of the graph, in one sweep: a file may hold a hundred thousand of them.
bool forward_identities(Graph& graph) {
  Rewriter r(graph);
  const std::vector<bool> is_output = outputs_of(graph);
  std::vector<ValueId> target(graph.values.size());
  std::iota(target.begin(), target.end(), 0);
  const auto forward = [&](ValueId& id) {
    if (id != kNoValue) id = target[static_cast<size_t>(id)];
  };
  std::vector<bool> drop(graph.nodes.size());
  for (const int n : r.nodes()) {  // in topological order, so that a chain ends at its beginning
    const Node& node = r.node(n);
    if (!does_nothing(r, node) || is_output[static_cast<size_t>(node.outputs[0])]) continue;
    drop[static_cast<size_t>(n)] = true;
    target[static_cast<size_t>(node.outputs[0])] = target[static_cast<size_t>(node.inputs[0])];
  }
  if (!drop_nodes(graph, drop)) return false;
  for (Node& node : stoppable(graph.nodes)) {
    for (ValueId& id : node.inputs) forward(id);
    for_each_subgraph(node, [&](Graph& sub) {
      for (Capture& c : sub.captures) forward(c.outer);
    });
  }
  return true;
}

}  // namespace

bool eliminate_identity(Graph& graph) {
  const bool forwarded = forward_identities(graph);
  Rewriter r(graph);
  const std::vector<bool> is_output = outputs_of(graph);  // and stays so: none is redirected
  for (const int n : r.nodes()) {
    if (!does_nothing(r, r.node(n))) continue;
    const ValueId in = r.node(n).inputs[0], out = r.node(n).outputs[0];
    // A graph output keeps its own value, so what feeds it must write that instead; only a node can.
    const int producer = r.producer_index(in);
    if (producer < 0 || is_output[static_cast<size_t>(in)]) continue;
    r.remove(n);
    r.redirect(in, out);
    r.rename_output(producer, in, out);
  }
  const bool renamed = r.finish();
  return forwarded || renamed;
}

}  // namespace inferkit
