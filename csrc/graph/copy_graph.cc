#include "graph/copy_graph.h"

#include "platform/stoppable.h"

namespace inferkit {
namespace {

Node copy_node(const Node& node) {
  Node out = node;
  for (auto& [name, attribute] : out.attributes) {
    if (auto* sub = std::get_if<std::shared_ptr<Graph>>(&attribute)) *sub = std::make_shared<Graph>(copy_graph(**sub));
  }
  return out;
}

}  // namespace

Graph copy_graph(const Graph& graph) {
  Graph out;
  out.name = graph.name;
  out.values.reserve(graph.values.size());
  for (const Value& value : stoppable(graph.values)) out.values.push_back(value);
  out.nodes.reserve(graph.nodes.size());
  for (const Node& node : stoppable(graph.nodes)) out.nodes.push_back(copy_node(node));
  out.inputs = graph.inputs;
  out.outputs = graph.outputs;
  out.constants.reserve(graph.constants.size());
  for (const auto& [id, tensor] : stoppable(graph.constants)) out.constants.emplace(id, tensor);
  out.captures = graph.captures;
  out.origin = graph.origin;
  return out;
}

ModelFile copy_model(const ModelFile& file) {
  return {.graph = copy_graph(file.graph),
          .defaults = file.defaults,
          .fallbacks = file.fallbacks,
          .opsets = file.opsets,
          .ir_version = file.ir_version,
          .producer = file.producer,
          .version = file.version,
          .metadata = file.metadata,
          .file_bytes = file.file_bytes,
          .files = file.files,
          .misaligned_bytes = file.misaligned_bytes};
}

}  // namespace inferkit
