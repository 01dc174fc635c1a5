// Model-local functions: read once, inlined at every call.
#include "base/counted.h"
#include "base/text.h"
#include "graph/onnx_graph.h"
#include "platform/stoppable.h"

namespace inferkit::onnx {
namespace {

/// A graph that is passed to a function would read its caller's values from inside the function.
void refuse_graphs(const std::map<std::string_view, Attribute>& attributes, std::string_view function) {
  for (const auto& [name, value] : attributes)
    if (std::holds_alternative<std::shared_ptr<Graph>>(value))
      throw Error(ErrorCode::kUnsupportedOp, cat("the function ", quote(function), " takes a graph as its attribute ",
                                                 quote(name), ", which inferkit does not support"));
}

}  // namespace

void GraphReader::read_functions(const std::vector<Bytes>& messages) {
  for (const Bytes message : stoppable(messages)) {
    limits_.nodes(1);
    FunctionProto proto = parse_function(message);
    const std::tuple key(proto.domain, proto.name, proto.overload);
    if (proto.name.empty()) fail("the model has a function without a name");
    if (functions_.contains(key)) fail(cat("the function ", quote(proto.name), " is defined twice"));
    std::vector<NodeProto> nodes = parse_nodes(proto.nodes);
    Opsets opsets = read_opsets(proto.opset_import);
    // Defaults belong to no graph and may refer to nothing.
    Graph none;
    Scope nowhere{none, nullptr, nullptr, 0, {}};
    auto defaults =
        read_attributes(NodeProto{proto.name, proto.name, proto.domain, {}, {}, {}, proto.attribute_defaults}, nowhere);
    refuse_graphs(defaults, proto.name);
    functions_.emplace(key, Function{std::move(proto), std::move(nodes), std::move(opsets), std::move(defaults)});
  }
}

/// A call becomes the function's nodes, in the caller's graph, with the call's inputs and outputs under the function's
/// names and everything else under "call/name".
void GraphReader::inline_function(const Function& function, const NodeProto& call, Scope& caller) {
  const FunctionProto& proto = function.proto;
  check_depth(caller.depth + 1, call);
  limits_.inlined_nodes(1 + function.nodes.size());
  limits_.inlined_bytes(64 * (proto.inputs.size() + proto.outputs.size()));
  if (call.inputs.size() > proto.inputs.size() || call.outputs.size() > proto.outputs.size())
    fail(cat(describe(call), " has ", counted(call.inputs.size(), "input"), " and ",
             counted(call.outputs.size(), "output"), "; the function takes ", proto.inputs.size(), " and gives ",
             proto.outputs.size()));

  const std::string_view label = call.name.empty() ? call.op_type : call.name;
  Frame frame{function, {}, cat(caller.frame ? caller.frame->prefix : "", label, "/")};
  limits_.inlined_bytes(frame.prefix.size());
  frame.attributes = read_attributes(call, caller);
  refuse_graphs(frame.attributes, proto.name);

  Scope scope{caller.graph, nullptr, &frame, caller.depth + 1, {}};
  const std::vector<ValueId> inputs = read_node_inputs(call, caller);
  for (size_t i = 0; i < proto.inputs.size(); ++i) {
    const ValueId id = i < inputs.size() ? inputs[i] : kNoValue;
    if (!scope.names.emplace(proto.inputs[i], id).second)
      fail(cat("the function ", quote(proto.name), " has the input ", quote(proto.inputs[i]), " twice"));
  }
  // A node's output that is an output of the call goes straight to the caller's value.
  std::map<std::string_view, ValueId> targets;
  std::vector<ValueId> results;
  for (size_t i = 0; i < proto.outputs.size(); ++i) {
    const bool wanted = i < call.outputs.size() && !call.outputs[i].empty();
    results.push_back(wanted ? caller.names.at(call.outputs[i]) : kNoValue);
    if (wanted && !scope.names.contains(proto.outputs[i])) targets.emplace(proto.outputs[i], results.back());
  }
  for (const NodeProto& node : stoppable(function.nodes)) {
    for (const std::string_view name : node.outputs) {
      if (name.empty()) continue;
      const auto it = targets.find(name);
      const ValueId id = it != targets.end() ? it->second : add_value(scope, name);
      if (!scope.names.emplace(name, id).second)
        fail(cat("the value ", quote(name), " of the function ", quote(proto.name), " is defined twice"));
    }
  }
  for (const NodeProto& node : stoppable(function.nodes)) emit(node, scope);
  for (size_t i = 0; i < results.size(); ++i) {
    if (results[i] == kNoValue) continue;
    const auto it = scope.names.find(proto.outputs[i]);
    if (it == scope.names.end() || it->second == kNoValue)
      fail(cat("the output ", quote(proto.outputs[i]), " of the function ", quote(proto.name),
               " is computed by no node"));
    if (it->second != results[i]) {
      forward(it->second, results[i], scope);
    } else if (!targets.contains(proto.outputs[i])) {  // an input handed through, to itself
      fail(cat("the graph has a cycle through ", describe(call)));
    }
  }
}

/// Where an output of a function is one of its inputs, or the same as another output.
void GraphReader::forward(ValueId from, ValueId to, Scope& scope) {
  Node node;
  node.op_type = "Identity";
  if (scope.frame) node.name = cat(scope.frame->prefix, "output");
  const auto it = opsets_.find("");
  node.version = it == opsets_.end() ? 1 : it->second;
  node.inputs = {from};
  node.outputs = {to};
  scope.graph.nodes.push_back(std::move(node));
}

}  // namespace inferkit::onnx
