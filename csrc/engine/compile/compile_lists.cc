// Compilation of what is made of sequences: nodes that are spelled out for the tensors that a sequence has.
#include <algorithm>

#include "base/counted.h"
#include "engine/compile/compiler.h"
#include "engine/compile/inliner.h"
#include "graph/topological_sort.h"

namespace inferkit {

FlatGraph::FlatGraph(const Graph& from, std::span<const InputFacts> facts) : graph(from) {
  graph.inputs.clear();
  const auto count = [&](size_t i) {
    if (!facts[i].is_list) return kNoList;
    return facts[i].list ? static_cast<int64_t>(facts[i].list->items.size()) : 0;
  };
  for (size_t i = 0; i < facts.size(); ++i) {
    if (!facts[i].is_list) continue;
    if (facts[i].list) {
      lists[from.inputs[i]] = {facts[i].list->none, facts[i].dtype, {}};
    } else {
      held.insert(from.inputs[i]);
    }
  }
  for_each_plan_input(from, count, [&](ValueId id, size_t i, int64_t k) {
    graph.inputs.push_back(id);
    if (k < 0) {
      inputs.push_back(facts[i]);
      return;
    }
    graph.add_value(cat(from.values[static_cast<size_t>(from.inputs[i])].name, "[", k, "]"));
    inputs.push_back(facts[i].list->items[static_cast<size_t>(k)]);
    lists[from.inputs[i]].items.push_back(id);
  });
}

/// A node in its place in the compiler's graph.
class ListNode final : public ListContext {
 public:
  ListNode(Compiler& compiler, Graph& graph, const Node& node, std::span<const TensorFacts* const> in)
      : ListContext(node, in, {}), compiler_(compiler), graph_(graph) {}

  bool is_list(size_t i) const override { return compiler_.lists_.contains(in(i)) || compiler_.held_.contains(in(i)); }
  const ListFacts& list(size_t i) const override {
    const auto it = compiler_.lists_.find(in(i));
    if (it != compiler_.lists_.end()) return it->second;
    if (compiler_.held_.contains(in(i))) {
      throw NeedsValue(i, cat(node_.label(), ": what is in the sequence of input ", i, " is only known during a run"));
    }
    wrong(cat("input ", i, in(i) == kNoValue ? " is missing" : " must be a sequence, not a tensor"));
  }
  const TensorFacts& tensor(size_t i) const override {
    if (is_list(i)) wrong(cat("input ", i, " must be a tensor, not a sequence"));
    return input(i);
  }

  std::vector<ValueId> add(std::string_view op, int version, std::vector<ValueId> inputs, size_t outputs,
                           Attributes attributes = {}) override {
    Node& made = nodes_.emplace_back();
    made.op_type = op;
    made.name = node_.name;
    made.version = version;
    made.stands_for = node_.origins();
    made.inputs = std::move(inputs);
    made.attributes = std::move(attributes);
    const std::string name = node_.name.empty() ? node_.op_type : node_.name;
    for (size_t i = 0; i < outputs; ++i) made.outputs.push_back(graph_.add_value(name));
    return made.outputs;
  }
  ValueId constant(Tensor tensor) override {
    const ValueId id = graph_.add_value(node_.name.empty() ? node_.op_type : node_.name);
    graph_.constants.emplace(id, std::move(tensor));
    return id;
  }
  std::vector<ValueId> add_body(const Graph& body, std::span<const ValueId> inputs) override {
    Inliner inliner(graph_, body, inputs);
    inliner.add_nodes(nodes_);
    std::vector<ValueId> out;
    for (size_t i = 0; i < body.outputs.size(); ++i) out.push_back(inliner.output(i));
    return out;
  }
  void give(size_t o, ValueId id) override {
    if (!has_output(o)) return;
    add("Identity", 13, {id}, 0, {});
    nodes_.back().outputs = {node_.outputs[o]};
  }
  void give_list(size_t o, ListFacts list) override {
    if (list.items.size() > kMostItems) {
      fail(cat("a sequence of ", counted(list.items.size(), "tensor"), "; it may have ", kMostItems));
    }
    if (has_output(o)) lists_.emplace_back(node_.outputs[o], std::move(list));
  }

  std::vector<Node>& nodes() { return nodes_; }
  std::vector<std::pair<ValueId, ListFacts>>& lists() { return lists_; }

 private:
  Compiler& compiler_;
  Graph& graph_;
  std::vector<Node> nodes_;
  std::vector<std::pair<ValueId, ListFacts>> lists_;
};

void Compiler::resolve(size_t n, const OpDef& def) {
  own();
  const Node node = own_->nodes[n];
  std::vector<const TensorFacts*> in;
  for (const ValueId id : node.inputs) in.push_back(facts(id));
  ListNode context(*this, *own_, node, in);
  def.resolve(context);
  for (auto& [id, list] : context.lists()) {
    // A chain of inserts holds the list again after each of them.
    constexpr size_t kMostListed = size_t{1} << 22;
    listed_ += list.items.size();
    if (listed_ > kMostListed) {
      throw WrongNode(cat(node.label(), ": the sequences of the graph hold more than ", kMostListed,
                          " tensors in all; a loop that carries one holds it once"));
    }
    lists_[id] = std::move(list);
  }
  replace(n, std::move(context.nodes()));
}

bool Compiler::is_list(ValueId id) const { return lists_.contains(id) || held_.contains(id); }

/// Of a node that is not an operator on sequences; whether it only passes one on.
bool Compiler::passes_list(const Node& node, const OpDef& def) {
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    if (!is_list(node.inputs[i])) continue;
    if (node.op_type == "Identity" && node.domain.empty()) {
      if (held_.contains(node.inputs[i])) {
        throw NeedsValue(i, cat(node.label(), ": what is in the sequence is only known during a run"));
      }
      lists_[node.outputs[0]] = lists_.at(node.inputs[i]);
      return true;
    }
    if (!def.schema.takes_lists) {
      throw WrongNode(cat(node.label(), ": input ", i, " must be a tensor, not a sequence"));
    }
  }
  return false;
}

/// Before the plan is split: sequences that are read after it, or are outputs, are made once it has run.
std::vector<Node> Compiler::make_lists() {
  std::vector<Node> made;
  const auto make = [&](ValueId id) {
    const auto it = lists_.find(id);
    if (it == lists_.end() || waits_[static_cast<size_t>(id)]) return;
    Node& node = made.emplace_back();
    node.op_type = kListOp;
    node.domain = kInternal;
    node.version = 1;
    node.name = graph().values[static_cast<size_t>(id)].name;
    node.inputs = it->second.items;
    node.outputs = {id};
    node.attributes.emplace("none", int64_t{it->second.none});
    node.attributes.emplace("type", static_cast<int64_t>(it->second.dtype.value_or(DType::kF32)));
    node.attributes.emplace("any_type", int64_t{!it->second.dtype});
    waits_[static_cast<size_t>(id)] = true;
  };
  for (const ValueId id : graph().outputs) make(id);
  for (const auto& [n, input] : deferred_) for_each_read(graph().nodes[n], make);
  return made;
}

}  // namespace inferkit
