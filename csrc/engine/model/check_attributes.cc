#include "engine/model/check_attributes.h"

#include <set>
#include <tuple>
#include <vector>

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

/// All that check_node sees of a node without attributes.
using Plain = std::tuple<const OpDef*, std::vector<bool>, size_t>;

Plain plain(const Node& node, const OpDef& def) {
  std::vector<bool> given;
  for (const ValueId id : node.inputs) given.push_back(id != kNoValue);
  return {&def, std::move(given), node.outputs.size()};
}

/// `good`: those that are known to be well. Most nodes of a large graph are like others of it.
void check(const Graph& graph, std::vector<std::string>& unsupported, std::set<Plain>& good) {
  for (const Node& node : stoppable(graph.nodes)) {
    if (const OpDef* def = OpRegistry::instance().find(node.domain, node.op_type, node.version)) {
      if (is_expanded(node)) continue;  // refused already
      try {
        const bool checked = node.attributes.empty() && good.contains(plain(node, *def));
        if (!checked) check_node(node, *def);
        if (!checked && node.attributes.empty()) good.insert(plain(node, *def));
      } catch (const Error& error) {
        if (error.code() != ErrorCode::kUnsupportedOp) throw;
        unsupported.push_back(error.what());
      }
    }
    for (const auto& [name, attribute] : node.attributes) {
      if (const auto* subgraph = std::get_if<std::shared_ptr<Graph>>(&attribute)) {
        check(**subgraph, unsupported, good);
      }
    }
  }
}

}  // namespace

void check_attributes(const Graph& graph, std::vector<std::string>& unsupported) {
  std::set<Plain> good;
  check(graph, unsupported, good);
}

}  // namespace inferkit
