#include "engine/compile/place.h"

#include <algorithm>
#include <cstdlib>
#include <set>
#include <stdexcept>

#include "base/immortal.h"
#include "base/text.h"
#include "engine/compile/compiler.h"
#include "engine/compile/lacking.h"
#include "platform/run_control.h"

namespace inferkit {

std::string_view precision_name(Precision precision) {
  switch (precision) {
    case Precision::kAny:
      return "any";
    case Precision::kFloat32:
      return "float32";
    case Precision::kBf16:
      return "bf16";
    case Precision::kFloat16:
      return "float16";
  }
  return "";
}

std::string_view layout_name(Layout layout) {
  switch (layout) {
    case Layout::kPlain:
      return "plain";
    case Layout::kBlocks:
      return "blocks";
  }
  return "";
}

// ---- What is asked for ----------------------------------------------------------------------------------------------

namespace {

constexpr const char* kVariable = "INFERKIT_LOWERING";

std::string joined(const std::set<std::string_view>& names) {
  std::string out;
  for (const std::string_view name : names) out += cat(out.empty() ? "" : ", ", name);
  return out;
}

/// The ways of an operator, of all domains and opsets; empty where there is no such operator.
std::set<std::string_view> names_of(std::string_view op) {
  std::set<std::string_view> out;
  for (const OpDef* def : OpRegistry::instance().all()) {
    if (def->schema.name != op) continue;
    for (const Lowering& lowering : def->lowerings) {
      if (lowering.device == DeviceKind::kCpu) out.insert(lowering.name);
    }
  }
  return out;
}

/// The operators that have several ways on the CPU: on other devices there is one for each.
std::set<std::string_view> ops_with_a_choice() {
  std::set<std::string_view> out;
  for (const OpDef* def : OpRegistry::instance().all()) {
    const auto on_cpu = [](const Lowering& lowering) { return lowering.device == DeviceKind::kCpu; };
    if (std::ranges::count_if(def->lowerings, on_cpu) > 1) out.insert(def->schema.name);
  }
  return out;
}

}  // namespace

LoweringWishes LoweringWishes::parse(std::string_view text) {
  LoweringWishes out;
  while (!text.empty()) {
    const size_t end = std::min(text.find(','), text.size());
    const std::string_view wish = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const size_t at = wish.find('=');
    if (at == std::string_view::npos) {
      throw std::invalid_argument(
          cat(kVariable, ": ", quote(wish), " is not Operator=lowering, as in Conv=rows,ReduceSum=generic"));
    }
    const std::string_view op = wish.substr(0, at), name = wish.substr(at + 1);
    const auto names = names_of(op);
    if (names.empty()) {
      throw std::invalid_argument(cat(kVariable, ": there is no operator ", quote(op),
                                      "; those with several lowerings are ", joined(ops_with_a_choice())));
    }
    if (!names.contains(name)) {
      throw std::invalid_argument(
          cat(kVariable, ": ", op, " has no lowering ", quote(name), "; use one of ", joined(names)));
    }
    out.by_op_.insert_or_assign(std::string(op), std::string(name));
  }
  return out;
}

const LoweringWishes& LoweringWishes::of_process() {
  static const LoweringWishes& wishes = immortal([] {
    const char* text = std::getenv(kVariable);
    return parse(text ? text : "");
  }());
  return wishes;
}

std::string_view LoweringWishes::of(std::string_view op) const {
  if (by_op_.empty()) return {};
  const auto it = by_op_.find(op);
  return it == by_op_.end() ? std::string_view() : std::string_view(it->second);
}

// ---- The choice -----------------------------------------------------------------------------------------------------

namespace {

Cost cost_of(const Lowering& lowering, const NodeContext& node) {
  if (lowering.precision != Precision::kAny && node.input(0).dtype != DType::kF32) {
    return Cost::cannot("it is for float32");
  }
  return lowering.cost ? lowering.cost(node) : Cost(0);
}

}  // namespace

Choice choose_lowering(const OpDef& def, DeviceKind device, const NodeContext& node, const LoweringWishes& wishes,
                       std::vector<Considered>* considered, Precision precision) {
  const auto is_for_it = [&](const Lowering& lowering) {
    return lowering.device == device && (!rounds_operands(lowering.precision) || lowering.precision == precision);
  };
  const auto first = std::ranges::find_if(def.lowerings, is_for_it);
  if (first == def.lowerings.end()) {
    node.unsupported(cat("it has no lowering for the device '", device_kind_name(device), "'"));
  }
  const auto refuse = [&](const Cost& cost) {
    node.unsupported(
        cat("its lowering for the device '", device_kind_name(device), "' cannot run it: ", cost.why_not()));
  };
  if (std::ranges::count_if(def.lowerings, is_for_it) == 1) {
    // On the CPU the one way runs all that the operator is registered for; on a device that is to be asked.
    const Cost cost = device == DeviceKind::kCpu ? Cost(0) : cost_of(*first, node);
    if (!cost.possible()) refuse(cost);
    return {&*first, Choice::Why::kOnly};
  }
  // What a node computes in is its own affair and not one of costs, which depend on the batch.
  const bool rounds = std::ranges::any_of(def.lowerings, [&](const Lowering& lowering) {
    return is_for_it(lowering) && rounds_operands(lowering.precision) && cost_of(lowering, node).possible();
  });
  const Cost other =
      Cost::cannot(precision == Precision::kBf16 ? "it does not compute in bf16" : "it does not compute in float16");
  // The wishes are for the CPU's ways.
  const std::string_view wish = device == DeviceKind::kCpu ? wishes.of(def.schema.name) : std::string_view();
  const Lowering *best = nullptr, *wished = nullptr;
  double least = 0;
  for (const Lowering& lowering : def.lowerings) {
    if (!is_for_it(lowering)) continue;
    const Cost cost = rounds && !rounds_operands(lowering.precision) ? other : cost_of(lowering, node);
    if (considered) considered->push_back({&lowering, cost});
    if (!cost.possible()) continue;
    if (lowering.name == wish) wished = &lowering;
    if (best && !(cost.nanos() < least)) continue;  // of equals, the first
    best = &lowering;
    least = cost.nanos();
  }
  if (wished) return {wished, Choice::Why::kForced};
  // The first of a device is for float32, and runs all that the others do.
  if (!best && device != DeviceKind::kCpu) refuse(cost_of(*first, node));
  if (!best) node.unsupported("no lowering can run it");
  if (!wish.empty()) return {best, Choice::Why::kCannotForce};
  return {best, rounds ? Choice::Why::kPrecision : Choice::Why::kCheapest};
}

Compiler::NodeFacts Compiler::node_facts(const Node& node) const {
  NodeFacts out;
  for (ValueId id : node.inputs) out.in.push_back(facts(id));
  for (ValueId id : node.outputs) out.out.push_back(facts(id) ? *facts(id) : TensorFacts{});
  return out;
}

/// Is what the node mainly reads made in the host's memory?
bool Compiler::is_made_on_host(const Node& node) const {
  return !node.inputs.empty() && node.inputs[0] != kNoValue && made_on_host_[static_cast<size_t>(node.inputs[0])];
}

/// The way that node n takes on the plan's device, or else on the CPU where that may step in.
Choice Compiler::choose(size_t n, const OpDef& def, const NodeContext& node, const LoweringWishes& wishes) {
  std::vector<Considered>* considered = options_.notes ? &considered_[n] : nullptr;
  if (options_.lacking) options_.lacking->ask(def, node);
  const auto on = [&](DeviceKind device) {
    return choose_lowering(def, device, node, wishes, considered, options_.precision);
  };
  const DeviceKind device = options_.device->kind();
  if (!options_.fallback || device == DeviceKind::kCpu) return on(device);
  std::string why;
  try {
    const Choice choice = on(device);
    if (!choice.lowering->is_view || !is_made_on_host(node.node())) return choice;
    why = "its output is memory of its input, which the CPU has made";
  } catch (const Error& error) {  // a value that a cost needs is not there, too: the CPU may do without
    if (error.code() != ErrorCode::kUnsupportedOp) throw;
    why = without_label(error.what(), node.node());
  }
  if (considered) {
    considered->clear();
    lacks_[n] = std::move(why);
  }
  return on(DeviceKind::kCpu);
}

void Compiler::place() {
  const LoweringWishes& wishes = options_.wishes ? *options_.wishes : LoweringWishes::of_process();
  choices_.assign(graph().nodes.size(), {});
  made_on_host_.assign(graph().values.size(), false);
  for (size_t n = 0; n < graph().nodes.size(); ++n) {
    const Node& node = graph().nodes[n];
    RunControl::check();
    if (!node_needed_[n]) continue;
    NodeFacts known = node_facts(node);
    for (size_t i = 0; i < known.out.size(); ++i) {
      const ValueId id = node.outputs[i];
      const TensorFacts& f = known.out[i];
      const bool made = id != kNoValue && value_needed_[static_cast<size_t>(id)] && !f.constant;
      if (made) run_bytes_.add_value(node, f.dtype, f.shape);
    }
    // Nothing to compute, whatever the other dimensions are: a loop over them might not end.
    const auto is_empty = [](const TensorFacts& f) { return f.shape.elements() == 0; };
    if (std::all_of(known.out.begin(), known.out.end(), is_empty)) continue;
    const OpDef* def = OpRegistry::instance().find(node.domain, node.op_type, node.version);
    guarded(n, [&] { choices_[n] = choose(n, *def, NodeContext(node, known.in, known.out), wishes); });
    if (!choices_[n].lowering || !is_on_host(*choices_[n].lowering)) continue;
    for (const ValueId id : node.outputs) {
      if (id != kNoValue) made_on_host_[static_cast<size_t>(id)] = true;
    }
  }
  if (options_.fallback && options_.device->kind() != DeviceKind::kCpu) keep_on_host(wishes);
}

}  // namespace inferkit
