#include "engine/compile/expand.h"

#include <algorithm>

#include "base/error.h"
#include "base/immortal.h"
#include "engine/compile/compile.h"
#include "engine/compile/inliner.h"
#include "platform/stoppable.h"

namespace inferkit {

Expansion::Attributes Expansion::keep(std::initializer_list<std::string_view> names) const {
  Attributes out;
  for (const std::string_view name : names) {
    if (const auto it = node_.attributes.find(name); it != node_.attributes.end()) out.insert(*it);
  }
  return out;
}

std::vector<ValueId> Expansion::add_many(size_t outputs, std::string_view op, int version, std::vector<ValueId> inputs,
                                         Attributes attributes) {
  while (!inputs.empty() && inputs.back() == kNoValue) inputs.pop_back();
  Node out;
  out.op_type = op;
  out.name = cat(node_.name.empty() ? node_.op_type : node_.name, "/", op);
  out.version = version;
  out.stands_for = node_.origins();
  out.inputs = std::move(inputs);
  for (size_t i = 0; i < outputs; ++i) out.outputs.push_back(graph_.add_value(out.name));
  out.attributes = std::move(attributes);
  nodes_.push_back(std::move(out));
  return nodes_.back().outputs;
}

ValueId Expansion::add(std::string_view op, int version, std::vector<ValueId> inputs, Attributes attributes) {
  return add_many(1, op, version, std::move(inputs), std::move(attributes))[0];
}

std::vector<ValueId> Expansion::add_internal(size_t outputs, std::string_view op, std::vector<ValueId> inputs,
                                             Attributes attributes) {
  auto ids = add_many(outputs, op, 1, std::move(inputs), std::move(attributes));
  nodes_.back().domain = kInternal;
  return ids;
}

std::vector<ValueId> Expansion::add_body(const Graph& body, std::span<const ValueId> inputs) {
  Inliner inliner(graph_, body, inputs);
  inliner.add_nodes(nodes_);
  std::vector<ValueId> out;
  for (size_t i = 0; i < body.outputs.size(); ++i) out.push_back(inliner.output(i));
  return out;
}

ValueId Expansion::constant_of(Tensor tensor) {
  const ValueId id = graph_.add_value(cat(node_.name.empty() ? node_.op_type : node_.name, "/constant"));
  graph_.constants.emplace(id, std::move(tensor));
  return id;
}

ValueId Expansion::number(float value) {
  const float values[] = {value};
  return constant_of(make_tensor<float>({}, values));
}

ValueId Expansion::integers(std::vector<int64_t> values) {
  return constant_of(make_tensor<int64_t>({static_cast<int64_t>(values.size())}, std::span<const int64_t>(values)));
}

void Expansion::give(size_t o, ValueId id) {
  const ValueId target = node_.outputs[o];
  const bool own = std::any_of(nodes_.begin(), nodes_.end(), [&](const Node& n) {
    return std::find(n.outputs.begin(), n.outputs.end(), id) != n.outputs.end();
  });
  if (!own) {
    const ValueId copy = add("Identity", 13, {id});
    return give(o, copy);
  }
  for (Node& n : nodes_) {
    std::replace(n.outputs.begin(), n.outputs.end(), id, target);
    std::replace(n.inputs.begin(), n.inputs.end(), id, target);
  }
}

void Expansion::refuse(const std::string& what) const {
  throw Error(ErrorCode::kUnsupportedOp, cat(node_.label(), ": ", what));
}

namespace {

/// By row_key; filled while the registry is, read-only afterwards.
std::map<std::string, ExpandFn, std::less<>>& expansions() {
  static auto& table = immortal(std::map<std::string, ExpandFn, std::less<>>());
  return table;
}

/// Tells the rows of an operator apart by their first opset.
std::string row_key(const OpSchema& schema) { return cat(schema.domain, ":", schema.name, ":", schema.since); }

ExpandFn find_expansion(const Node& node) {
  const OpDef* def = OpRegistry::instance().find(node.domain, node.op_type, node.version);
  if (!def) return nullptr;
  const auto it = expansions().find(row_key(def->schema));
  return it == expansions().end() ? nullptr : it->second;
}

}  // namespace

bool is_expanded(const Node& node) { return find_expansion(node) != nullptr; }

void expand_nodes(Graph& graph, std::vector<std::string>& refused) {
  std::vector<Node> out;
  for (Node& node : stoppable(graph.nodes)) {
    for_each_subgraph(node, [&](Graph& sub) { expand_nodes(sub, refused); });
    const ExpandFn expand = find_expansion(node);
    if (!expand) {
      out.push_back(std::move(node));
      continue;
    }
    try {
      Expansion expansion(graph, node);
      expand(expansion);
      for (Node& n : expansion.nodes()) out.push_back(std::move(n));
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kUnsupportedOp) throw;
      refused.push_back(error.what());
      out.push_back(std::move(node));  // what it reads is still asked for
    }
  }
  graph.nodes = std::move(out);
}

void add_expanded(OpRegistry& registry, OpSchema schema, ExpandFn expand) {
  schema.infer = [](InferContext& c) { c.unsupported("a node that was not spelled out"); };
  registry.add(schema, nullptr);
  expansions()[row_key(schema)] = expand;
}

}  // namespace inferkit
