// Compilation where values that only a run gives decide shapes: subgraphs take the place of nodes that choose one, and
// what must wait for values becomes the plan's continuation.
#include <algorithm>
#include <atomic>

#include "engine/compile/compiler.h"
#include "engine/compile/inliner.h"
#include "graph/passes/pattern.h"
#include "graph/topological_sort.h"
#include "platform/stoppable.h"

namespace inferkit {
namespace {

const OpDef* find(const Node& node) { return OpRegistry::instance().find(node.domain, node.op_type, node.version); }

}  // namespace

/// From here on the graph can be changed.
void Compiler::own() {
  if (own_) return;
  own_ = std::make_shared<Graph>(*graph_);
  // The facts of constants point into the graph.
  for (const auto& [id, tensor] : own_->constants) facts_[static_cast<size_t>(id)]->constant = &tensor;
  graph_ = own_.get();
}

/// Puts `nodes` where node n was; they may have new values and constants.
/// Those behind it wait in pending_, so that a graph of which every node is replaced takes no longer than others.
void Compiler::replace(size_t n, std::vector<Node> nodes) {
  const size_t known = facts_.size();
  facts_.resize(own_->values.size());
  waits_.resize(own_->values.size());
  for (size_t id = known; id < facts_.size(); ++id) {
    if (const Tensor* tensor = own_->constant(static_cast<ValueId>(id))) {
      facts_[id] = TensorFacts{tensor->dtype, tensor->shape, tensor};
    }
  }
  std::vector<Node>& all = own_->nodes;
  for (size_t i = all.size(); i-- > n + 1;) pending_.push_back(std::move(all[i]));
  all.erase(all.begin() + static_cast<std::ptrdiff_t>(n), all.end());
  // Nested maps of sequences multiply: a file of some hundred bytes must not fill memory.
  constexpr size_t kMostAdded = size_t{1} << 18;
  added_ += nodes.size();
  if (added_ > kMostAdded) {
    throw WrongNode(cat("branches and maps of sequences become more than ", kMostAdded, " nodes"));
  }
  for (size_t i = nodes.size(); i-- > 0;) pending_.push_back(std::move(nodes[i]));
}

void Compiler::replace_by_subgraph(size_t n, const Graph& subgraph) {
  own();
  const Node call = own_->nodes[n];  // keeps `subgraph` alive
  if (!subgraph.inputs.empty() || subgraph.outputs.size() < call.outputs.size()) {
    throw Error(ErrorCode::kModel, cat(call.label(), ": a branch must have no inputs and one output for each of the ",
                                       call.outputs.size(), " of the node"));
  }
  std::vector<Node> nodes;
  Inliner inliner(*own_, subgraph);
  inliner.add_nodes(nodes);
  for (size_t i = 0; i < call.outputs.size(); ++i) {
    if (call.outputs[i] == kNoValue) continue;
    Node& identity = nodes.emplace_back();
    identity.op_type = "Identity";
    identity.version = 13;
    identity.name = call.name;
    identity.inputs = {inliner.output(i)};
    identity.outputs = {call.outputs[i]};
  }
  replace(n, std::move(nodes));
}

/// Puts nodes in place of one whose subgraph only a run chooses, or goes round; false where it has none, or that cannot
/// be done.
bool Compiler::imagine(size_t n) {
  if (options_.imagined == CompileOptions::Imagined::kNothing) return false;
  const Node& node = graph().nodes[n];
  const auto subgraph = [&](std::string_view name) -> const Graph* {
    const auto it = node.attributes.find(name);
    const auto* held = it == node.attributes.end() ? nullptr : std::get_if<std::shared_ptr<Graph>>(&it->second);
    return held ? held->get() : nullptr;
  };
  const bool lists = std::ranges::any_of(node.inputs, [&](ValueId id) { return id != kNoValue && is_list(id); });
  if (!node.domain.empty() || lists) return false;
  if (node.op_type == "If") {
    const bool first = options_.imagined == CompileOptions::Imagined::kThen;
    const Graph* const branch = subgraph(first ? "then_branch" : "else_branch");
    if (branch) replace_by_subgraph(n, *branch);
    return branch != nullptr;
  }
  const bool scan = node.op_type == "Scan";
  const Graph* const body = scan || node.op_type == "Loop" ? subgraph("body") : nullptr;
  const auto first = node.inputs.begin() + (scan ? 0 : 2);
  if (!body || std::find(first, node.inputs.end(), kNoValue) != node.inputs.end()) return false;
  imagine_rounds(n, *body, scan);
  return true;
}

/// Of a Loop: iteration, condition, states. Of a Scan: states, and what it scans at a place that is not known. What is
/// stacked is so many times what the second round gives, where it is known how many there are.
void Compiler::imagine_rounds(size_t n, const Graph& body, bool scan) {
  own();
  const Node call = own_->nodes[n];  // keeps `body` alive
  std::vector<Node> nodes;
  const auto unknown = [&](const char* name) { return own_->add_value(name); };
  const auto add = [&](const char* op, int version, std::vector<ValueId> inputs, ValueId output, int64_t axis) {
    Node& node = nodes.emplace_back();
    node.op_type = op;
    node.name = call.name;
    node.version = version;
    node.inputs = std::move(inputs);
    node.outputs = {output == kNoValue ? own_->add_value(call.name) : output};
    if (node.op_type == "Unsqueeze") node.attributes.emplace("axes", std::vector<int64_t>{axis});
    if (node.op_type == "Gather" || node.op_type == "Concat") node.attributes.emplace("axis", axis);
    return node.outputs[0];
  };
  const ValueId iteration = unknown("iteration"), condition = unknown("condition");
  const size_t scanned = scan ? static_cast<size_t>(int_attr(call, "num_scan_inputs", 0)) : 0;
  const size_t fixed = scan ? 0 : 2, states = call.inputs.size() - fixed - scanned;  // as the operator has checked
  const size_t first_out = scan ? 0 : 1;
  const auto axis_of = [&](const char* name, size_t i) -> int64_t {
    const auto it = call.attributes.find(name);
    const auto* axes = it == call.attributes.end() ? nullptr : std::get_if<std::vector<int64_t>>(&it->second);
    return axes && i < axes->size() ? (*axes)[i] : 0;
  };
  constexpr int64_t kMostStacked = 4096;
  int64_t trips = -1;
  std::vector<ValueId> given(call.inputs.begin() + static_cast<std::ptrdiff_t>(fixed), call.inputs.end());
  for (size_t i = states; i < given.size(); ++i) {
    const int64_t axis = axis_of("scan_input_axes", i - states);
    const Shape& shape = known(given[i]).shape;
    const int64_t at = axis < 0 ? axis + static_cast<int64_t>(shape.rank()) : axis;
    if (at >= 0 && at < static_cast<int64_t>(shape.rank())) trips = shape[static_cast<size_t>(at)];
    given[i] = add("Gather", 13, {given[i], iteration}, kNoValue, axis);
  }
  if (!scan && call.inputs[0] != kNoValue) {
    const TensorFacts& most = known(call.inputs[0]);
    if (most.constant && most.dtype == DType::kI64 && most.shape.elements() == 1) trips = *most.constant->as<int64_t>();
  }
  trips_.push_back(trips);
  std::vector<ValueId> results;
  for (int round = 0; round < 2; ++round) {
    std::vector<ValueId> in;
    if (!scan) in = {iteration, condition};
    in.insert(in.end(), given.begin(), given.end());
    Inliner inliner(*own_, body, in);
    inliner.add_nodes(nodes);
    results.clear();
    for (size_t i = 0; i < body.outputs.size(); ++i) results.push_back(inliner.output(i));
    if (!scan) add("Identity", 13, {results[0]}, kNoValue, 0);  // whether it goes on is read
    for (size_t i = 0; i < states; ++i) given[i] = results[first_out + i];
  }
  for (size_t i = 0; i < call.outputs.size(); ++i) {
    if (call.outputs[i] == kNoValue) continue;
    const ValueId last = results[first_out + i];
    if (i < states) {
      add("Identity", 13, {last}, call.outputs[i], 0);
      continue;
    }
    const int64_t axis = scan ? axis_of("scan_output_axes", i - states) : 0;
    const ValueId one = add("Unsqueeze", 11, {last}, kNoValue, axis);
    const auto copies = static_cast<size_t>(std::clamp<int64_t>(trips < 0 ? 2 : trips, 1, kMostStacked));
    add("Concat", 13, std::vector<ValueId>(copies, one), call.outputs[i], axis);
  }
  replace(n, std::move(nodes));
  facts_[static_cast<size_t>(iteration)] = TensorFacts{DType::kI64, {}, nullptr};
  facts_[static_cast<size_t>(condition)] = TensorFacts{DType::kBool, {}, nullptr};
}

void Compiler::defer(size_t n, std::optional<size_t> input) {
  deferred_[n] = input;
  for (const ValueId id : graph().nodes[n].outputs) {
    if (id != kNoValue) waits_[static_cast<size_t>(id)] = true;
  }
}

/// Sequences that a run holds do not count where the operator itself asks what is in them.
bool Compiler::reads_deferred(const Node& node) const {
  bool found = false;
  for_each_read(node, [&](ValueId id) { found |= waits_[static_cast<size_t>(id)]; });
  if (!found || held_.empty()) return found;
  const OpDef* def = find(node);
  if (!def || (def->dynamic && !def->resolve)) return true;
  found = false;
  for_each_read(node, [&](ValueId id) { found |= waits_[static_cast<size_t>(id)] && !held_.contains(id); });
  return found;
}

int Compiler::output_of_model(size_t output) const {
  return options_.continuation ? options_.continuation->outputs[output] : static_cast<int>(output);
}

/// What the plan gives, and what it leaves.
void Compiler::split() {
  std::erase_if(deferred_, [&](const auto& d) { return !node_needed_[d.first]; });
  std::vector<Node> lists = make_lists();
  const bool gives_lists = std::ranges::any_of(graph().outputs, [&](ValueId id) { return is_list(id); });
  for (size_t i = 0; i < graph().outputs.size(); ++i) {
    if (!waits_[static_cast<size_t>(graph().outputs[i])]) {
      plan_->results.push_back({graph().outputs[i], output_of_model(i)});
    }
  }
  for (const auto& [n, input] : deferred_) node_needed_[n] = false;  // not by this plan
  if (deferred_.empty() && !gives_lists) return;
  if (!fold_) {  // one node by itself: nothing follows
    plan_->next = std::make_shared<Continuation>();
    return;
  }
  static std::atomic<uint64_t> serials{0};
  auto next = std::make_shared<Continuation>();
  next->serial = serials.fetch_add(1, std::memory_order_relaxed) + 1;  // relaxed: only that they differ matters
  std::vector<bool> later = waits_;                                    // values that even the dynamic nodes do not give
  next->dynamic = std::move(lists);
  for (const Node& node : next->dynamic) later[static_cast<size_t>(node.outputs[0])] = false;
  for (const ValueId id : held_) later[static_cast<size_t>(id)] = false;
  run_dynamically(*next, later);
  add_rest(*next, later);
  if (next->dynamic.empty() && next->known.empty() && !next->ends()) {
    throw Error(ErrorCode::kModel,
                cat(graph().nodes[deferred_.begin()->first].label(), ": waits for a value that no node computes"));
  }
  plan_->next = std::move(next);
}

/// The deferred nodes that can run on values right after the plan.
void Compiler::run_dynamically(Continuation& next, std::vector<bool>& later) {
  std::map<size_t, std::optional<size_t>> left;
  for (const auto& [n, input] : stoppable(deferred_)) {
    const Node& node = graph().nodes[n];
    const OpDef* def = find(node);
    const bool on_values = def && options_.values_vary && input && !def->select && !def->resolve;
    bool ready = def && (def->dynamic || on_values);
    for_each_read(node, [&](ValueId id) { ready = ready && !later[static_cast<size_t>(id)]; });
    if (!ready) {
      left.emplace(n, input);
      continue;
    }
    next.dynamic.push_back(node);
    for (const ValueId id : node.outputs) {
      if (id != kNoValue) later[static_cast<size_t>(id)] = false;
    }
  }
  for (size_t i = 0; i < graph().outputs.size(); ++i) {
    const auto id = static_cast<size_t>(graph().outputs[i]);
    if (waits_[id] && !later[id]) next.computed.push_back({graph().outputs[i], output_of_model(i)});
  }
  deferred_ = std::move(left);
  // What the plan must hand on to them is known to add_rest alone, which looks at all that is deferred.
}

void Compiler::add_rest(Continuation& next, const std::vector<bool>& later) {
  Graph& rest = next.rest;
  rest.name = graph().name;
  rest.values = graph().values;
  // By value, as a node may read tens of thousands: whether it is handed on, and one more than its place in the rest's
  // inputs.
  std::vector<bool> handed_on(rest.values.size());
  std::vector<size_t> taken(rest.values.size());
  for (const PlanResult& result : plan_->results) handed_on[static_cast<size_t>(result.value)] = true;
  for (const ValueId id : graph().inputs) handed_on[static_cast<size_t>(id)] = true;
  const auto take = [&](ValueId id, bool to_rest) {
    const auto at = static_cast<size_t>(id);
    if (later[at]) return;
    const TensorFacts* f = waits_[at] ? nullptr : &known(id);
    if (f && f->constant) {
      rest.constants.emplace(id, *f->constant);
      return;
    }
    if (f && !handed_on[at]) {
      handed_on[at] = true;
      plan_->results.push_back({id, -1});
    }
    if (!to_rest || taken[at]) return;
    rest.inputs.push_back(id);
    taken[at] = rest.inputs.size();
  };
  for (const Node& node : stoppable(next.dynamic)) {
    for_each_read(node, [&](ValueId id) {
      if (!waits_[static_cast<size_t>(id)]) take(id, /*to_rest=*/false);
    });
  }
  for (const auto& [n, input] : stoppable(deferred_)) {
    const Node& node = graph().nodes[n];
    for_each_read(node, [&](ValueId id) { take(id, /*to_rest=*/true); });
    rest.nodes.push_back(node);
  }
  for (const auto& [n, input] : stoppable(deferred_)) {
    if (!input) continue;
    const Node& node = graph().nodes[n];
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      // All sequences of a node at once: what is known of one is forgotten when the next is asked for.
      if (i != *input && !is_list(node.inputs[i])) continue;
      const ValueId id = node.inputs[i];
      if (id != kNoValue && taken[static_cast<size_t>(id)]) next.known.push_back(taken[static_cast<size_t>(id)] - 1);
    }
  }
  std::sort(next.known.begin(), next.known.end());
  next.known.erase(std::unique(next.known.begin(), next.known.end()), next.known.end());
  for (size_t i = 0; i < graph().outputs.size(); ++i) {
    if (!later[static_cast<size_t>(graph().outputs[i])]) continue;
    rest.outputs.push_back(graph().outputs[i]);
    next.outputs.push_back(output_of_model(i));
  }
}

}  // namespace inferkit
