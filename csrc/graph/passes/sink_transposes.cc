// Channels-last models: exporters put Transpose before and behind each operator that wants channels first. Operators
// that do not mind the order of dimensions run on what a Transpose reads, and what it gives is transposed behind them,
// until two that undo each other meet. The nodes are walked once; a Transpose is written where somebody needs its
// output as it is.
#include <algorithm>
#include <iterator>
#include <numeric>
#include <utility>

#include "graph/passes/passes.h"
#include "graph/passes/pattern.h"
#include "graph/topological_sort.h"

namespace inferkit {
namespace {

using Permutation = std::vector<int64_t>;  // output dimension i is input dimension p[i]

constexpr std::string_view kUnary[] = {
    "Abs",  "Acos",        "Acosh",     "Asin",     "Asinh",     "Atan",    "Atanh", "Cast",
    "Ceil", "Celu",        "Cos",       "Cosh",     "Elu",       "Erf",     "Exp",   "Floor",
    "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log",     "Mish",  "Neg",
    "Not",  "Reciprocal",  "Relu",      "Round",    "Selu",      "Sigmoid", "Sign",  "Sin",
    "Sinh", "Softplus",    "Softsign",  "Sqrt",     "Swish",     "Tan",     "Tanh",  "ThresholdedRelu"};
/// Broadcast as numpy does since opset 7.
constexpr std::string_view kBinary[] = {"Add", "Sub", "Mul", "Div", "Pow", "PRelu", "Max", "Min"};
constexpr std::string_view kReductions[] = {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"};

template <size_t n>
bool is_one_of(const Node& node, const std::string_view (&names)[n]) {
  return node.domain.empty() && std::ranges::find(names, node.op_type) != std::end(names);
}

/// Channels to the end or back to the second place, of images and volumes: others have other purposes, and patterns of
/// their own that are looked for.
bool moves_channels(const Permutation& p) {
  const auto rank = static_cast<int64_t>(p.size());
  if (rank != 4 && rank != 5) return false;
  Permutation last{0}, first{0, rank - 1};
  for (int64_t i = 2; i < rank; ++i) last.push_back(i);
  last.push_back(1);
  for (int64_t i = 1; i < rank - 1; ++i) first.push_back(i);
  return p == last || p == first;
}

std::optional<Permutation> permutation_of(const Node& node) {
  if (!is_op(node, "Transpose") || node.inputs.size() != 1 || node.outputs.size() != 1) return std::nullopt;
  if (node.inputs[0] == kNoValue || node.outputs[0] == kNoValue) return std::nullopt;
  const auto it = node.attributes.find("perm");
  const auto* perm = it == node.attributes.end() ? nullptr : std::get_if<std::vector<int64_t>>(&it->second);
  if (!perm || !moves_channels(*perm)) return std::nullopt;
  return *perm;
}

bool is_identity(const Permutation& p) {
  for (size_t i = 0; i < p.size(); ++i)
    if (p[i] != static_cast<int64_t>(i)) return false;
  return true;
}

/// A walk over the nodes of a graph that leaves it as it is; nodes(), then, are what it would become.
class Sinking {
 public:
  explicit Sinking(Graph& graph) : graph_(graph), first_new_(graph.values.size()) {}

  void run() {
    for (const Node& node : stoppable(graph_.nodes)) take(node);
    for (const ValueId id : graph_.outputs) write(id);
  }
  std::vector<Node> nodes() { return std::move(nodes_); }
  bool met() const { return met_; }
  /// Takes back the values and constants that were added.
  void undo() {
    for (auto id = static_cast<ValueId>(first_new_); id < static_cast<ValueId>(graph_.values.size()); ++id)
      graph_.constants.erase(id);
    graph_.values.resize(first_new_);
  }

 private:
  /// A value that is `source` transposed, and not written yet; as it is where `by` is an identity.
  struct Unwritten {
    ValueId source = kNoValue;
    Permutation by;
    NodeOrigin of;  // the Transpose
  };

  const Unwritten* unwritten(ValueId id) const {
    const auto it = unwritten_.find(id);
    return it == unwritten_.end() ? nullptr : &it->second;
  }

  /// From now on `id` is computed.
  void write(ValueId id) {
    const auto it = unwritten_.find(id);
    if (it == unwritten_.end()) return;
    Node& node = nodes_.emplace_back();
    const bool same = is_identity(it->second.by);
    node.op_type = same ? "Identity" : "Transpose";
    node.name = it->second.of.name;
    node.version = 13;
    node.inputs = {it->second.source};
    node.outputs = {id};
    if (!same) node.attributes.emplace("perm", it->second.by);
    unwritten_.erase(it);
  }

  void take(const Node& node) {
    if (const auto perm = permutation_of(node)) {
      // Of another rank: no such graph runs, and the two are nothing together.
      const Unwritten* before = unwritten(node.inputs[0]);
      if (before && before->by.size() != perm->size()) write(node.inputs[0]);
      Unwritten out{node.inputs[0], *perm, {node.op_type, node.name}};
      if (const Unwritten* in = unwritten(node.inputs[0])) {
        out.source = in->source;
        for (int64_t& d : out.by) d = in->by[static_cast<size_t>(d)];
        met_ = met_ || is_identity(out.by);
      }
      unwritten_.emplace(node.outputs[0], std::move(out));
      return;
    }
    if (node.outputs.size() == 1 && node.outputs[0] != kNoValue && goes_through(node)) return;
    // What is transposed by an identity is read where it is, but for subgraphs, which know it by its id.
    Node out = node;
    for (ValueId& id : out.inputs) {
      const Unwritten* in = unwritten(id);
      if (in && is_identity(in->by)) id = in->source;
    }
    for_each_read(out, [&](ValueId id) { write(id); });
    nodes_.push_back(std::move(out));
  }

  /// The permutation that inputs have in common, of those that are transposed; nullopt where there is none.
  std::optional<Permutation> common(const Node& node) const {
    std::optional<Permutation> out;
    for (const ValueId id : node.inputs) {
      const Unwritten* in = unwritten(id);
      if (!in) continue;
      if (out && *out != in->by) return std::nullopt;
      out = in->by;
    }
    return out;
  }

  bool goes_through(const Node& node) {
    if (node.inputs.empty()) return false;
    const std::optional<Permutation> by = common(node);
    if (!by || is_identity(*by)) return false;
    const auto rank = static_cast<int64_t>(by->size());
    const auto moved = [&](int64_t axis) { return (*by)[static_cast<size_t>(axis < 0 ? axis + rank : axis)]; };
    const auto fits = [&](int64_t axis) { return axis >= -rank && axis < rank; };
    if (is_one_of(node, kUnary)) return unwritten(node.inputs[0]) && node.inputs.size() == 1 && pass(node, *by);
    if (is_op(node, "Clip")) {  // its bounds are scalars
      for (size_t i = 1; i < node.inputs.size(); ++i)
        if (unwritten(node.inputs[i])) return false;
      return pass(node, *by);
    }
    if (is_one_of(node, kBinary)) return node.version >= 7 && pass_with_constants(node, *by);
    const bool along = is_op(node, "Concat") || (is_op(node, "Softmax") && node.version >= 13);
    if (along) {
      const int64_t axis = int_attr(node, "axis", is_op(node, "Softmax") ? -1 : rank);
      if (!fits(axis) || std::ranges::any_of(node.inputs, [&](ValueId id) { return !unwritten(id); })) return false;
      Node out = node;
      out.attributes.insert_or_assign("axis", moved(axis));
      return pass(std::move(out), *by);
    }
    if (is_one_of(node, kReductions) && unwritten(node.inputs[0])) return reduce(node, *by);
    return false;
  }

  /// `node` on what is transposed, and its output transposed instead.
  bool pass(Node node, const Permutation& by) {
    NodeOrigin of;
    for (ValueId& id : node.inputs) {
      const Unwritten* in = unwritten(id);
      if (!in) continue;
      id = in->source;
      of = in->of;
    }
    const ValueId before = graph_.add_value(graph_.values[static_cast<size_t>(node.outputs[0])].name);
    unwritten_.emplace(node.outputs[0], Unwritten{before, by, std::move(of)});
    node.outputs[0] = before;
    nodes_.push_back(std::move(node));
    return true;
  }

  bool pass_with_constants(const Node& node, const Permutation& by) {
    Node out = node;
    std::vector<std::pair<ValueId*, Shape>> changed;
    for (ValueId& id : out.inputs) {
      if (unwritten(id)) continue;
      const Tensor* constant = id == kNoValue ? nullptr : graph_.constant(id);
      if (!constant || constant->shape.rank() > by.size()) return false;
      // Of one dimension at most, so that its elements stay in their order.
      Shape wide = constant->shape;
      while (wide.rank() < by.size()) wide.insert(0, 1);
      if (std::ranges::count_if(wide, [](int64_t d) { return d != 1; }) > 1) return false;
      Shape turned = wide;
      for (size_t i = 0; i < by.size(); ++i) turned[static_cast<size_t>(by[i])] = wide[i];
      if (turned != constant->shape && constant->shape.elements() != 1) changed.emplace_back(&id, turned);
    }
    for (auto& [id, shape] : changed) {
      Tensor constant = *graph_.constant(*id);
      constant.shape = shape;
      const ValueId turned = graph_.add_value(graph_.values[static_cast<size_t>(*id)].name);
      graph_.constants.emplace(turned, std::move(constant));
      *id = turned;
    }
    return pass(std::move(out), by);
  }

  /// What stays is as transposed as before; without the dimensions that are gone, it may stand in its order already.
  bool reduce(const Node& node, const Permutation& by) {
    const auto rank = static_cast<int64_t>(by.size());
    if (node.inputs.size() != 1) return false;  // axes as an input
    const auto it = node.attributes.find("axes");
    const auto* axes = it == node.attributes.end() ? nullptr : std::get_if<std::vector<int64_t>>(&it->second);
    if (!axes) return false;
    std::vector<bool> gone(by.size());
    std::vector<int64_t> turned;
    for (const int64_t axis : *axes) {
      if (axis < -rank || axis >= rank) return false;
      const auto at = static_cast<size_t>(axis < 0 ? axis + rank : axis);
      gone[at] = true;
      turned.push_back(by[at]);
    }
    std::ranges::sort(turned);
    Node out = node;
    out.attributes.insert_or_assign("axes", turned);
    if (int_attr(node, "keepdims", 1) != 0) return pass(std::move(out), by);
    int64_t last = -1;
    for (size_t i = 0; i < by.size(); ++i) {
      if (gone[i]) continue;
      if (by[i] < last) return false;
      last = by[i];
    }
    out.inputs[0] = unwritten(node.inputs[0])->source;
    nodes_.push_back(std::move(out));
    return true;
  }

  Graph& graph_;
  const size_t first_new_;
  std::vector<Node> nodes_;
  std::map<ValueId, Unwritten> unwritten_;
  bool met_ = false;
};

int64_t transposes(const std::vector<Node>& nodes) {
  return std::ranges::count_if(nodes, [](const Node& node) { return is_op(node, "Transpose"); });
}

}  // namespace

bool sink_transposes(Graph& graph) {
  if (std::ranges::none_of(graph.nodes, [](const Node& node) { return permutation_of(node).has_value(); }))
    return false;
  Sinking sinking(graph);
  sinking.run();
  std::vector<Node> nodes = sinking.nodes();
  if (!sinking.met() || transposes(nodes) >= transposes(graph.nodes)) {
    sinking.undo();
    return false;
  }
  graph.nodes = std::move(nodes);
  return true;
}

}  // namespace inferkit
