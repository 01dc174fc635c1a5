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

}  // namespace

bool eliminate_identity(Graph& graph) {
  Rewriter r(graph);
  for (int n = 0; n < r.size(); ++n) {
    if (!does_nothing(r, r.node(n))) continue;
    const ValueId in = r.node(n).inputs[0], out = r.node(n).outputs[0];
    const bool is_output = std::find(graph.outputs.begin(), graph.outputs.end(), out) != graph.outputs.end();
    if (!is_output) {
      r.remove(n);
      r.redirect(out, in);
      continue;
    }
    // A graph output keeps its own value, so what feeds it must write that instead; only a node can.
    const int producer = r.producer_index(in);
    if (producer < 0 || std::find(graph.outputs.begin(), graph.outputs.end(), in) != graph.outputs.end()) continue;
    r.remove(n);
    r.redirect(in, out);
    r.rename_output(producer, in, out);
  }
  return r.finish();
}

}  // namespace inferkit
