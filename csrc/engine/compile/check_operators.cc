// What the operator table alone tells of a graph.
#include <algorithm>
#include <map>

#include "base/counted.h"
#include "base/text.h"
#include "engine/compile/compiler.h"
#include "platform/stoppable.h"

namespace inferkit {

namespace {

/// "has 2 inputs; Relu takes 1", or empty.
std::string wrong_arity(const Node& node, const OpSchema& schema) {
  const auto wrong = [&](size_t count, int least, int most, const char* what, const char* verb) {
    if (count >= static_cast<size_t>(least) && count <= static_cast<size_t>(most)) return std::string();
    const std::string bounds = least == most                   ? cat(least)
                               : most == OpSchema().max_inputs ? cat("at least ", least)
                                                               : cat(least, " to ", most);
    return cat("has ", counted(count, what), "; ", node.op_type, " ", verb, " ", bounds);
  };
  const std::string in = wrong(node.inputs.size(), schema.min_inputs, schema.max_inputs, "input", "takes");
  return in.empty() ? wrong(node.outputs.size(), schema.min_outputs, schema.max_outputs, "output", "has") : in;
}

}  // namespace

void check_arity(const Node& node, const OpSchema& schema) {
  const std::string wrong = wrong_arity(node, schema);
  if (!wrong.empty()) throw Error(ErrorCode::kModel, cat(node.label(), ": ", wrong));
}

void name_required_outputs(Node& node, Graph& graph) {
  const OpDef* def = OpRegistry::instance().find(node.domain, node.op_type, node.version);
  if (!def) return;
  const auto required = std::min(node.outputs.size(), static_cast<size_t>(def->schema.min_outputs));
  for (size_t i = 0; i < required; ++i) {
    if (node.outputs[i] == kNoValue) node.outputs[i] = graph.add_value("");
  }
}

namespace {

/// Calls visit(Node, Graph) for every node, those of subgraphs included.
template <class Visit>
void for_each_node(const Graph& graph, const Visit& visit) {
  for (const Node& node : stoppable(graph.nodes)) {
    visit(node, graph);
    for (const auto& [name, attribute] : node.attributes) {
      if (const auto* subgraph = std::get_if<std::shared_ptr<Graph>>(&attribute)) for_each_node(**subgraph, visit);
    }
  }
}

void collect_missing(const Graph& graph, std::map<std::string, int>& counts) {
  for_each_node(graph, [&](const Node& node, const Graph&) {
    if (OpRegistry::instance().find(node.domain, node.op_type, node.version)) return;
    const std::string domain = node.domain.empty() ? "" : node.domain + ".";
    ++counts[cat("operator ", domain, node.op_type, " (opset ", node.version, ")")];
  });
}

/// What to do about the operators of a domain that no exporter writes; empty for other domains.
std::string_view hint_for(std::string_view line) {
  // Layouts that ONNX Runtime's optimizer chooses for the processor that it runs on.
  constexpr std::string_view kOfOneProcessor[] = {"operator com.microsoft.nchwc.", "operator com.ms.internal.nhwc."};
  if (std::ranges::none_of(kOfOneProcessor, [&](std::string_view domain) { return line.starts_with(domain); })) {
    return {};
  }
  return ": ONNX Runtime's optimizer writes this at its level 'all', for the processor it runs on. Save the model at "
         "level 'extended' (SessionOptions.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_EXTENDED), or "
         "load the file that was optimized";
}

/// Its label, for one without a name with what it computes.
std::string findable(const Node& node, const Graph& graph) {
  if (!node.name.empty()) return node.label();
  for (const ValueId output : node.outputs) {
    if (output == kNoValue) continue;
    const std::string& name = graph.values[static_cast<size_t>(output)].name;
    if (!name.empty()) return cat(node.label(), " that computes ", quote(name));
  }
  return node.label();
}

}  // namespace

std::vector<std::string> missing_operators(const Graph& graph) {
  std::map<std::string, int> counts;
  collect_missing(graph, counts);
  std::vector<std::string> lines;
  bool hinted = false;  // once for all of them
  for (const auto& [what, count] : counts) {
    const std::string_view hint = hinted ? std::string_view() : hint_for(what);
    hinted |= !hint.empty();
    lines.push_back(cat(what, ", ", counted(count, "node"), hint));
  }
  return lines;
}

void check_arities(const Graph& graph) {
  for_each_node(graph, [](const Node& node, const Graph& of) {
    const OpDef* def = OpRegistry::instance().find(node.domain, node.op_type, node.version);
    const std::string wrong = def ? wrong_arity(node, def->schema) : std::string();
    if (!wrong.empty()) throw Error(ErrorCode::kModel, cat(findable(node, of), ": ", wrong));
  });
}

void name_required_outputs(Graph& graph) {
  for (Node& node : stoppable(graph.nodes)) {
    name_required_outputs(node, graph);
    for (auto& [name, attribute] : node.attributes) {
      if (auto* subgraph = std::get_if<std::shared_ptr<Graph>>(&attribute)) name_required_outputs(**subgraph);
    }
  }
}

}  // namespace inferkit
