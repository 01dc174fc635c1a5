#include "engine/model/widen_halves.h"

#include <algorithm>
#include <string_view>

#include "base/text.h"
#include "engine/compile/compile.h"
#include "graph/passes/pattern.h"
#include "platform/stoppable.h"

namespace inferkit {
namespace {

/// TensorProto.DataType's numbers.
constexpr int64_t kFloatCode = 1, kStringCode = 8, kHalfCode = 10, kBFloatCode = 16;

bool is_half(std::optional<DType> dtype) { return dtype == DType::kF16 || dtype == DType::kBF16; }
bool is_half_code(int64_t code) { return code == kHalfCode || code == kBFloatCode; }

/// The attributes that name a type.
bool names_a_type(std::string_view attribute) {
  constexpr std::string_view kNames[] = {"to",        "dtype",           "output_dtype",
                                         "precision", "output_datatype", "softmax_precision"};
  return std::ranges::find(kNames, attribute) != std::end(kNames);
}

/// Operators whose speed does not depend on the type's arithmetic.
bool only_moves(const Node& node) {
  constexpr std::string_view kMovers[] = {"Cast",           "Constant", "Concat",   "Expand",    "Flatten",   "Gather",
                                          "GatherElements", "GatherND", "Identity", "Reshape",   "Shape",     "Slice",
                                          "Split",          "Squeeze",  "Tile",     "Transpose", "Unsqueeze", "Where"};
  return node.domain.empty() && std::ranges::find(kMovers, node.op_type) != std::end(kMovers);
}

/// What a graph and its subgraphs hold.
struct Survey {
  bool halves = false;     // of a half type: an input, a constant, the type of a cast
  bool computes = false;   // there is more than movement
  bool sees_bits = false;  // and something would tell a widened half from one

  void look(const Graph& graph) {
    for (const ValueId id : graph.inputs) halves |= is_half(graph.values[static_cast<size_t>(id)].dtype);
    for (const auto& [id, tensor] : graph.constants) halves |= is_half(tensor.dtype);
    for (const Node& node : stoppable(graph.nodes)) {
      computes |= !only_moves(node);
      sees_bits |=
          is_op(node, "BitCast") || is_op(node, "CastLike") ||
          // Draws stay below their bound in the type that they are drawn in.
          is_op(node, "RandomUniform") || is_op(node, "RandomUniformLike") ||
          (is_op(node, "Cast") && int_attr(node, "to", 0) == kStringCode) ||
          // From opset 23 on it divides in `precision`, or in the type of the scale.
          (is_op(node, "QuantizeLinear") && (node.version >= 23 || is_half_code(int_attr(node, "precision", 0))));
      for (const auto& [name, attribute] : node.attributes) {
        if (const auto* code = std::get_if<int64_t>(&attribute)) {
          halves |= names_a_type(name) && is_half_code(*code) && name != "softmax_precision";
        }
        if (const auto* tensor = std::get_if<Tensor>(&attribute)) halves |= is_half(tensor->dtype);
        if (const auto* body = std::get_if<std::shared_ptr<Graph>>(&attribute)) look(**body);
      }
    }
  }
};

Node cast_node(ValueId from, ValueId to, int64_t code) {
  Node node;
  node.op_type = "Cast";
  node.version = 13;
  node.inputs = {from};
  node.outputs = {to};
  node.attributes.emplace("to", code);
  return node;
}

Tensor widened(const Tensor& half) {
  const Tensor* input = &half;
  std::vector<Tensor> out = evaluate_node(cast_node(0, 1, kFloatCode), std::span(&input, 1), {});
  if (out.size() != 1) throw Error(ErrorCode::kModel, "a constant of a half type cannot be widened");
  return std::move(out[0]);
}

class Widening {
 public:
  /// `main`: the graph has the types of its inputs and outputs, which callers see.
  Widening(Graph& graph, bool main)
      : graph_(graph), main_(main), moved_(graph.values.size(), kNoValue), is_output_(graph.values.size(), false) {
    for (const ValueId id : graph.outputs) is_output_[static_cast<size_t>(id)] = true;
  }

  void run() {
    find_tables();
    if (main_) find_caches();
    for (const ValueId id : constants_in_order()) widen_constant(id);
    if (main_) {
      for (const ValueId id : graph_.inputs) widen_input(id);
      for (const ValueId id : graph_.outputs) widen_output(id);
    } else {
      for (ValueId& id : graph_.outputs) id = target(id);
    }
    std::vector<Node> nodes = std::move(first_);
    for (Node& node : stoppable(graph_.nodes)) {
      std::optional<DType> narrow;  // what the node gives is half, and widened at once
      if (table_of(node)) narrow = graph_.constants.at(node.inputs[0]).dtype;
      const int64_t code = is_op(node, "Cast") && node.outputs.size() == 1 ? int_attr(node, "to", 0) : 0;
      if (is_half_code(code)) narrow = code == kHalfCode ? DType::kF16 : DType::kBF16;
      rewrite(node);
      if (!narrow) {
        nodes.push_back(std::move(node));
        continue;
      }
      if (is_half_code(code)) node.attributes.insert_or_assign("to", code);  // the file rounds here
      const ValueId out = node.outputs[0];
      const ValueId half = fresh(out, *narrow);
      node.outputs[0] = half;
      nodes.push_back(std::move(node));
      nodes.push_back(cast(half, out, kFloatCode));
    }
    std::ranges::move(last_, std::back_inserter(nodes));
    graph_.nodes = std::move(nodes);
    declare();
  }

 private:
  /// Constants of half types that Gather alone reads, as a table.
  void find_tables() {
    tables_.assign(graph_.values.size(), false);
    for (const auto& [id, tensor] : graph_.constants) tables_[static_cast<size_t>(id)] = is_half(tensor.dtype);
    const auto reject = [&](ValueId id) {
      if (id != kNoValue) tables_[static_cast<size_t>(id)] = false;
    };
    for (const ValueId id : graph_.outputs) reject(id);
    for (const Node& node : stoppable(graph_.nodes)) {
      const bool gathers = is_op(node, "Gather") && node.outputs.size() == 1 && node.outputs[0] != kNoValue;
      for (size_t i = gathers ? 1 : 0; i < node.inputs.size(); ++i) reject(node.inputs[i]);
      for (const auto& [name, attribute] : node.attributes) {
        const auto* body = std::get_if<std::shared_ptr<Graph>>(&attribute);
        if (!body) continue;
        for (const Capture& capture : (*body)->captures) reject(capture.outer);
      }
    }
  }
  bool table_of(const Node& node) const {
    return is_op(node, "Gather") && !node.inputs.empty() && node.inputs[0] != kNoValue &&
           tables_[static_cast<size_t>(node.inputs[0])];
  }

  /// The caches of GroupQueryAttention that come in and go out, untouched by others, stay as they are: each token reads
  /// all of a cache and writes one row, so that widening and rounding it again would take longer than the attention.
  void find_caches() {
    constexpr size_t kPast = 3, kPresent = 1;  // the first input and output of two
    caches_.assign(graph_.values.size(), false);
    std::vector<int> read(graph_.values.size(), 0);
    for (const Node& node : stoppable(graph_.nodes)) {
      for (const ValueId id : node.inputs) {
        if (id != kNoValue) ++read[static_cast<size_t>(id)];
      }
      for (const auto& [name, attribute] : node.attributes) {
        const auto* body = std::get_if<std::shared_ptr<Graph>>(&attribute);
        if (!body) continue;
        for (const Capture& capture : (*body)->captures) ++read[static_cast<size_t>(capture.outer)];
      }
    }
    for (Node& node : stoppable(graph_.nodes)) {
      if (!is_op(node, "GroupQueryAttention", "com.microsoft") || node.attributes.contains(kCacheType)) continue;
      std::vector<ValueId> caches;
      bool kept = true;
      for (const size_t i : {kPast, kPast + 1}) {
        if (i >= node.inputs.size() || node.inputs[i] == kNoValue) continue;
        const ValueId id = caches.emplace_back(node.inputs[i]);
        kept &= std::ranges::find(graph_.inputs, id) != graph_.inputs.end() && !graph_.constants.contains(id) &&
                read[static_cast<size_t>(id)] == 1;
      }
      for (const size_t o : {kPresent, kPresent + 1}) {
        if (o >= node.outputs.size() || node.outputs[o] == kNoValue) continue;
        const ValueId id = caches.emplace_back(node.outputs[o]);
        kept &= read[static_cast<size_t>(id)] == 0;  // chosen or not: bits do not depend on it
      }
      if (caches.empty()) continue;
      const std::optional<DType> dtype = graph_.values[static_cast<size_t>(caches[0])].dtype;
      for (const ValueId id : caches) kept &= graph_.values[static_cast<size_t>(id)].dtype == dtype;
      if (!kept || !is_half(dtype)) continue;
      for (const ValueId id : caches) caches_[static_cast<size_t>(id)] = true;
      node.attributes.emplace(kCacheType, dtype == DType::kF16 ? kHalfCode : kBFloatCode);
    }
  }
  bool stays(ValueId id) const { return static_cast<size_t>(id) < caches_.size() && caches_[static_cast<size_t>(id)]; }

  /// So that the new values have the same numbers in every load.
  std::vector<ValueId> constants_in_order() const {
    std::vector<ValueId> ids;
    for (const auto& [id, tensor] : graph_.constants) {
      if (is_half(tensor.dtype) && !tables_[static_cast<size_t>(id)]) ids.push_back(id);
    }
    std::ranges::sort(ids);
    return ids;
  }

  ValueId fresh(ValueId like, std::optional<DType> dtype) {
    const Value& old = graph_.values[static_cast<size_t>(like)];
    Value value{old.name, dtype, old.shape};
    graph_.values.push_back(std::move(value));
    return static_cast<ValueId>(graph_.values.size() - 1);
  }
  ValueId target(ValueId id) const {
    if (id == kNoValue || static_cast<size_t>(id) >= moved_.size()) return id;
    const ValueId moved = moved_[static_cast<size_t>(id)];
    return moved == kNoValue ? id : moved;
  }
  Node cast(ValueId from, ValueId to, int64_t code) const {
    Node node = cast_node(from, to, code);
    node.name = cat(graph_.values[static_cast<size_t>(to)].name, code == kFloatCode ? "/widened" : "/rounded");
    return node;
  }

  void widen_constant(ValueId id) {
    const ValueId wide = fresh(id, DType::kF32);
    moved_[static_cast<size_t>(id)] = wide;
    graph_.constants.emplace(wide, widened(graph_.constants.at(id)));
    if (!main_ || !is_output_[static_cast<size_t>(id)]) graph_.constants.erase(id);
  }
  void widen_input(ValueId id) {
    if (!is_half(graph_.values[static_cast<size_t>(id)].dtype) || stays(id)) return;
    const ValueId wide = fresh(id, DType::kF32);
    moved_[static_cast<size_t>(id)] = wide;
    first_.push_back(cast(id, wide, kFloatCode));
  }
  /// Whoever makes an output makes it wide, and it is rounded at the end; what is an input or a constant is as it was.
  void widen_output(ValueId id) {
    const std::optional<DType> declared = graph_.values[static_cast<size_t>(id)].dtype;
    if (!is_half(declared) || stays(id) || moved_[static_cast<size_t>(id)] != kNoValue || graph_.constants.contains(id))
      return;
    const ValueId wide = fresh(id, DType::kF32);
    moved_[static_cast<size_t>(id)] = wide;
    last_.push_back(cast(wide, id, declared == DType::kF16 ? kHalfCode : kBFloatCode));
  }

  void rewrite(Node& node) {
    if (node.op_type.find("Gelu") != std::string::npos) node.attributes.emplace(kKeepsTail, int64_t{1});
    for (ValueId& id : node.inputs) id = target(id);
    for (ValueId& id : node.outputs) id = target(id);
    for (auto& [name, attribute] : node.attributes) {
      if (auto* code = std::get_if<int64_t>(&attribute); code && names_a_type(name) && is_half_code(*code)) {
        *code = kFloatCode;
      }
      if (auto* tensor = std::get_if<Tensor>(&attribute); tensor && is_half(tensor->dtype)) *tensor = widened(*tensor);
      if (auto* body = std::get_if<std::shared_ptr<Graph>>(&attribute)) {
        for (Capture& capture : (*body)->captures) capture.outer = target(capture.outer);
        Widening(**body, false).run();
      }
    }
  }

  /// What the file declares of values between is no longer so.
  void declare() {
    std::vector<bool> kept(graph_.values.size(), false);
    const auto keep = [&](ValueId id) { kept[static_cast<size_t>(id)] = true; };
    if (main_) {
      for (const ValueId id : graph_.inputs) keep(id);
      for (const ValueId id : graph_.outputs) keep(id);
    }
    for (const auto& [id, tensor] : graph_.constants) keep(id);
    for (size_t i = 0; i < caches_.size(); ++i) {
      if (caches_[i]) keep(static_cast<ValueId>(i));
    }
    for (size_t i = 0; i < graph_.values.size(); ++i) {
      std::optional<DType>& dtype = graph_.values[i].dtype;
      if (!kept[i] && is_half(dtype)) dtype = DType::kF32;
    }
  }

  Graph& graph_;
  const bool main_;
  std::vector<ValueId> moved_;  // what takes the place of a value for its readers
  std::vector<bool> is_output_, tables_, caches_;
  std::vector<Node> first_, last_;
};

}  // namespace

bool can_widen_halves(const Graph& graph) {
  Survey survey;
  survey.look(graph);
  const auto declared = [&](ValueId id) { return graph.values[static_cast<size_t>(id)].dtype.has_value(); };
  const auto is_list = [&](ValueId id) { return graph.values[static_cast<size_t>(id)].list.has_value(); };
  if (std::ranges::any_of(graph.inputs, is_list)) return false;
  return survey.halves && survey.computes && !survey.sees_bits && std::ranges::all_of(graph.outputs, declared);
}

void widen_halves(Graph& graph) { Widening(graph, true).run(); }

}  // namespace inferkit
