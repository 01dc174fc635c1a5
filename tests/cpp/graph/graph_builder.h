// Small graphs written in code, and what tests look for in them.
#pragma once
#include <initializer_list>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "graph/ir.h"
#include "graph/topological_sort.h"

namespace inferkit::testing {

using Attributes = std::map<std::string, Attribute, std::less<>>;

struct Builder {
  Graph g;

  ValueId input(std::optional<DType> dtype = DType::kF32, std::optional<Shape> shape = std::nullopt) {
    const ValueId id = g.add_value(cat("in", g.inputs.size()));
    g.values.back().dtype = dtype;
    g.values.back().shape = shape;
    g.inputs.push_back(id);
    return id;
  }
  template <class T>
  ValueId constant(const Shape& shape, const std::vector<T>& values) {
    const ValueId id = g.add_value(cat("c", g.values.size()));
    g.constants.emplace(id, make_tensor<T>(shape, std::span<const T>(values)));
    return id;
  }
  ValueId number(float v) { return constant<float>({}, {v}); }
  /// A float32 ramp.
  ValueId ramp(const Shape& shape, float start = 0.5f, float step = 0.25f) {
    std::vector<float> v(static_cast<size_t>(shape.elements()));
    for (size_t i = 0; i < v.size(); ++i) v[i] = start + step * static_cast<float>(i);
    return constant<float>(shape, v);
  }
  ValueId node(const std::string& op, std::vector<ValueId> inputs, Attributes attributes = {}, int version = 17,
               size_t outputs = 1, const std::string& domain = "") {
    Node n;
    n.op_type = op;
    n.domain = domain;
    n.name = cat(op, g.nodes.size());
    n.version = version;
    n.inputs = std::move(inputs);
    n.attributes = std::move(attributes);
    for (size_t i = 0; i < outputs; ++i) n.outputs.push_back(g.add_value(cat(n.name, "_", i)));
    g.nodes.push_back(std::move(n));
    return g.nodes.back().outputs[0];
  }
  void output(ValueId id) { g.outputs.push_back(id); }
};

/// "Conv Relu": the graph's operators in order, internal ones with a star.
inline std::string ops(const Graph& g) {
  std::string out;
  for (const Node& n : g.nodes) out += (out.empty() ? "" : " ") + n.op_type + (n.domain == "inferkit" ? "*" : "");
  return out;
}

/// Every read is of an input, a constant, a capture or an earlier node's output, and nothing is defined twice.
inline bool is_consistent(const Graph& g) {
  std::set<ValueId> defined(g.inputs.begin(), g.inputs.end());
  for (const auto& [id, tensor] : g.constants)
    if (!defined.insert(id).second) return false;
  for (const Capture& c : g.captures)
    if (!defined.insert(c.inner).second) return false;
  for (const Node& n : g.nodes) {
    bool ok = true;
    for_each_read(n, [&](ValueId id) { ok &= defined.contains(id); });
    for (const auto& [name, a] : n.attributes)
      if (const auto* sub = std::get_if<std::shared_ptr<Graph>>(&a)) ok &= is_consistent(**sub);
    for (const ValueId id : n.outputs)
      if (id != kNoValue) ok &= defined.insert(id).second;
    if (!ok) return false;
  }
  for (const ValueId id : g.outputs)
    if (!defined.contains(id)) return false;
  return true;
}

template <class T>
T attr_of(const Node& n, const std::string& name) {
  return std::get<T>(n.attributes.at(name));
}

}  // namespace inferkit::testing
