// Of a plan that falls back to the CPU: light nodes of the device that stand between nodes of the CPU stay there, too,
// as their values would go over and back.
#include "engine/compile/compiler.h"
#include "engine/compile/op_registry.h"
#include "graph/topological_sort.h"
#include "platform/stoppable.h"

namespace inferkit {

/// Nodes of the device that are light, and what they read: made on the CPU, or by others of this kind, at least one of
/// it; besides that, inputs and constants, which are on both sides.
std::vector<bool> Compiler::fed_by_host() const {
  std::vector<bool> out(graph().nodes.size()), here = made_on_host_, there(graph().values.size());
  for (const size_t n : stoppable_indices(out.size())) {
    const Lowering* lowering = choices_[n].lowering;
    if (!lowering || is_on_host(*lowering)) continue;
    bool some = false, all = true;
    for_each_read(graph().nodes[n], [&](ValueId id) {
      some = some || here[static_cast<size_t>(id)];
      all = all && !there[static_cast<size_t>(id)];
    });
    out[n] = (lowering->is_light || lowering->is_view) && some && all;
    for (const ValueId id : graph().nodes[n].outputs) {
      if (id != kNoValue) (out[n] ? here : there)[static_cast<size_t>(id)] = true;
    }
  }
  return out;
}

void Compiler::keep_on_host(const LoweringWishes& wishes) {
  const std::vector<bool> fed = fed_by_host();
  std::vector<bool> read_here(graph().values.size()), read_there(graph().values.size());
  const size_t count = fed.size();
  for (const size_t i : stoppable_indices(count)) {
    const size_t n = count - 1 - i;
    const Node& node = graph().nodes[n];
    if (!choices_[n].lowering) continue;
    bool here = is_on_host(*choices_[n].lowering);
    if (fed[n]) {
      bool some = false, all = true;
      for (const ValueId id : node.outputs) {
        some = some || (id != kNoValue && read_here[static_cast<size_t>(id)]);
        all = all && !(id != kNoValue && read_there[static_cast<size_t>(id)]);
      }
      here = some && all && moves_to_host(n, wishes);
    }
    for_each_read(node, [&](ValueId id) { (here ? read_here : read_there)[static_cast<size_t>(id)] = true; });
  }
}

/// False where the CPU has no way for it.
bool Compiler::moves_to_host(size_t n, const LoweringWishes& wishes) {
  const Node& node = graph().nodes[n];
  NodeFacts known = node_facts(node);
  const OpDef* def = OpRegistry::instance().find(node.domain, node.op_type, node.version);
  std::vector<Considered> considered;
  bool moves = true;
  guarded(n, [&] {
    try {
      choices_[n] = choose_lowering(*def, DeviceKind::kCpu, NodeContext(node, known.in, known.out), wishes, &considered,
                                    options_.precision);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kUnsupportedOp) throw;
      moves = false;
    }
  });
  if (!moves) return false;
  if (options_.notes) {
    considered_[n] = std::move(considered);
    lacks_[n] = "it is light, and what it reads and who reads it are on the CPU";
  }
  for (const ValueId id : node.outputs) {
    if (id != kNoValue) made_on_host_[static_cast<size_t>(id)] = true;
  }
  return true;
}

}  // namespace inferkit
