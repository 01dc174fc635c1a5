// Linear layers that follow each other as one step, where a device has a way for all of them together. It is made here
// and not by a pass, as it depends on the batch whether it pays.
#include <algorithm>

#include "engine/compile/compiler.h"
#include "engine/compile/op_registry.h"
#include "graph/topological_sort.h"
#include "platform/stoppable.h"

namespace inferkit {

const Lowering* Compiler::way_for_joined(std::string_view op) const {
  const OpDef* const def = OpRegistry::instance().find(kInternal, op, 1);
  const auto way = std::ranges::find(def->lowerings, options_.device->kind(), &Lowering::device);
  return way == def->lowerings.end() ? nullptr : &*way;
}

/// The layers of float32 on the device that node n begins: each but the last is read by the next one alone.
std::vector<size_t> Compiler::layers_from(size_t n, const std::vector<int>& only_reader) const {
  const auto is_layer = [&](size_t at) {
    const Node& node = graph().nodes[at];
    const Lowering* const lowering = choices_[at].lowering;
    return lowering && !fused_.contains(at) && !is_on_host(*lowering) && !rounds_operands(lowering->precision) &&
           node.domain == kInternal && node.op_type == "Linear" && known(node.inputs[1]).constant &&
           (node.inputs.size() < 3 || node.inputs[2] == kNoValue || known(node.inputs[2]).constant);
  };
  std::vector<size_t> out;
  while (is_layer(n)) {
    out.push_back(n);
    const ValueId y = graph().nodes[n].outputs[0];
    const int reader = only_reader[static_cast<size_t>(y)];
    if (reader < 0 || graph().nodes[static_cast<size_t>(reader)].inputs[0] != y) break;
    n = static_cast<size_t>(reader);
  }
  return out;
}

/// All of them as one node: x, then the weights and the bias of each.
Node Compiler::joined(std::span<const size_t> layers) const {
  const Node& first = graph().nodes[layers.front()];
  Node out;
  out.op_type = "Mlp";
  out.domain = kInternal;
  out.version = 1;
  out.name = graph().nodes[layers.back()].name;
  out.inputs = {first.inputs[0]};
  out.outputs = graph().nodes[layers.back()].outputs;
  std::vector<std::string> activations;
  std::vector<float> alphas, betas;
  std::vector<int64_t> transposed;
  for (const size_t n : layers) {
    const Node& node = graph().nodes[n];
    const NodeContext c(node, {}, {});
    out.inputs.push_back(node.inputs[1]);
    out.inputs.push_back(node.inputs.size() > 2 ? node.inputs[2] : kNoValue);
    activations.push_back(c.attr_string("activation", ""));
    alphas.push_back(c.attr_float("activation_alpha", 0));
    betas.push_back(c.attr_float("activation_beta", 0));
    transposed.push_back(c.attr_int("transB", 0));
    std::ranges::copy(node.origins(), std::back_inserter(out.stands_for));
  }
  out.attributes = {{"activations", activations},
                    {"alphas", FloatList(alphas)},
                    {"betas", FloatList(betas)},
                    {"transposed", transposed}};
  return out;
}

void Compiler::join_layers() {
  const Lowering* const way = way_for_joined("Mlp");
  if (!way) return;
  constexpr int kNobody = -1, kSeveral = -2;
  std::vector<int> only_reader(graph().values.size(), kNobody);
  for (const size_t n : stoppable_indices(graph().nodes.size())) {
    for_each_read(graph().nodes[n], [&](ValueId id) {
      int& reader = only_reader[static_cast<size_t>(id)];
      reader = reader == kNobody ? static_cast<int>(n) : kSeveral;
    });
  }
  for (const PlanResult& result : plan_->results) {
    if (result.value != kNoValue) only_reader[static_cast<size_t>(result.value)] = kSeveral;
  }
  for (const size_t n : stoppable_indices(graph().nodes.size())) {
    const std::vector<size_t> layers = layers_from(n, only_reader);
    // As many as can.
    for (size_t count = layers.size(); count >= 2; --count) {
      const std::span<const size_t> taken = std::span(layers).first(count);
      Node node = joined(taken);
      NodeFacts known = node_facts(node);
      if (!way->cost(NodeContext(node, known.in, known.out)).possible()) continue;
      for (const size_t layer : taken) {
        choices_[layer] = {};
        considered_.erase(layer);
      }
      choices_[taken.back()] = {way, Choice::Why::kOnly};
      fused_.emplace(taken.back(), std::move(node));
      break;
    }
  }
}

}  // namespace inferkit
