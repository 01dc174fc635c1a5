#include "engine/model/check_attributes.h"

#include "engine/compile/expand.h"
#include "engine/compile/op_registry.h"
#include "platform/stoppable.h"

namespace inferkit {
namespace {

void check_node(const Node& node, const OpDef& def) {
  std::vector<const TensorFacts*> in(node.inputs.size(), nullptr);
  for (size_t i = 0; i < in.size(); ++i) {
    if (node.inputs[i] != kNoValue) in[i] = &kUnknownFacts;
  }
  std::vector<TensorFacts> out(node.outputs.size());
  std::vector<std::shared_ptr<Tensor>> constants;
  InferContext context(node, in, out, constants);
  try {
    if (def.select) {
      def.select(context);
    } else if (def.schema.infer) {
      def.schema.infer(context);
    }
  } catch (const UnknownInput&) {  // all that it asks of attributes before is well
  } catch (const NeedsValue&) {
  }
}

}  // namespace

void check_attributes(const Graph& graph, std::vector<std::string>& unsupported) {
  for (const Node& node : stoppable(graph.nodes)) {
    if (const OpDef* def = OpRegistry::instance().find(node.domain, node.op_type, node.version)) {
      if (is_expanded(node)) continue;  // refused already
      try {
        check_node(node, *def);
      } catch (const Error& error) {
        if (error.code() != ErrorCode::kUnsupportedOp) throw;
        unsupported.push_back(error.what());
      }
    }
    for (const auto& [name, attribute] : node.attributes) {
      if (const auto* subgraph = std::get_if<std::shared_ptr<Graph>>(&attribute)) {
        check_attributes(**subgraph, unsupported);
      }
    }
  }
}

}  // namespace inferkit
