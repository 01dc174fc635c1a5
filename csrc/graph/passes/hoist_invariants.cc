#include <algorithm>

#include "graph/passes/passes.h"
#include "graph/passes/pattern.h"

namespace inferkit {
namespace {

/// Where the values that iterations carry stand: from `first` among the inputs of node and body, from `body_output`
/// among the body's outputs, from 0 among the node's.
struct States {
  size_t first, body_output, count;
};

std::optional<States> states_of(const Node& node, const Graph& body) {
  States s{};
  if (is_op(node, "Loop")) {
    if (node.inputs.size() < 2) return {};
    s = {2, 1, node.inputs.size() - 2};
  } else if (is_op(node, "Scan") && node.version >= 9) {
    const int64_t scanned = int_attr(node, "num_scan_inputs", 0);
    const auto inputs = static_cast<int64_t>(node.inputs.size());
    if (scanned < 0 || scanned > inputs) return {};
    s = {0, 0, static_cast<size_t>(inputs - scanned)};
  } else {
    return {};
  }
  if (body.inputs.size() != node.inputs.size() || body.outputs.size() < s.body_output + s.count) return {};
  return s;
}

/// What `id` is a copy of.
ValueId original(const Rewriter& body, ValueId id) {
  const Node* node = body.producer(id);
  while (node && is_op(*node, "Identity") && node->inputs.size() == 1 && node->inputs[0] != kNoValue) {
    id = node->inputs[0];
    node = body.producer(id);
  }
  return id;
}

template <class T>
void erase_at(std::vector<T>& values, size_t i) {
  if (i < values.size()) values.erase(values.begin() + static_cast<std::ptrdiff_t>(i));
}

/// State `i` does not change: the body reads it from outside.
void hoist(Node& node, Graph& body, const States& s, size_t i) {
  body.captures.push_back({node.inputs[s.first + i], body.inputs[s.first + i]});
  erase_at(body.inputs, s.first + i);
  erase_at(body.outputs, s.body_output + i);
  erase_at(node.inputs, s.first + i);
  erase_at(node.outputs, i);
}

/// The states of node n that can be captured instead, the last first.
std::vector<size_t> invariant_states(const Rewriter& r, const Node& node, Graph& body, const States& s) {
  const Rewriter inner(body);
  std::vector<size_t> out;
  for (size_t i = s.count; i-- > 0;) {
    const ValueId given = body.inputs[s.first + i], outer = node.inputs[s.first + i];
    const ValueId last = i < node.outputs.size() ? node.outputs[i] : kNoValue;
    const auto& outputs = r.graph().outputs;
    const bool is_output = last != kNoValue && std::find(outputs.begin(), outputs.end(), last) != outputs.end();
    if (outer == kNoValue || is_output) continue;
    if (original(inner, body.outputs[s.body_output + i]) != given) continue;
    // What the body declares about its input is checked by the operator, so that it must hold.
    const auto declared = body.values[static_cast<size_t>(given)].dtype;
    if (!declared || r.dtype(outer) == declared) out.push_back(i);
  }
  return out;
}

}  // namespace

bool hoist_invariants(Graph& graph) {
  Rewriter r(graph);
  bool changed = false;
  for (const int n : r.nodes()) {
    const auto found = r.node(n).attributes.find("body");
    const auto* held =
        found == r.node(n).attributes.end() ? nullptr : std::get_if<std::shared_ptr<Graph>>(&found->second);
    if (!held) continue;
    const auto s = states_of(r.node(n), **held);
    const std::vector<size_t> states = s ? invariant_states(r, r.node(n), **held, *s) : std::vector<size_t>{};
    if (states.empty()) continue;
    Node node = r.node(n);
    const auto body = std::make_shared<Graph>(**held);  // the rewriter still counts what the old one reads
    std::vector<std::pair<ValueId, ValueId>> same;
    for (const size_t i : states) {
      if (i < node.outputs.size() && node.outputs[i] != kNoValue) {
        same.emplace_back(node.outputs[i], node.inputs[s->first + i]);
      }
      hoist(node, *body, *s, i);
    }
    node.attributes["body"] = body;
    r.replace(n, std::move(node));
    for (const auto& [last, outer] : same) r.redirect(last, outer);
    changed = true;
  }
  changed |= r.finish();
  for_each_subgraph(graph, [&](Graph& sub) { changed |= hoist_invariants(sub); });
  return changed;
}

}  // namespace inferkit
