#include "engine/model/input_sense.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <initializer_list>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "graph/passes/pattern.h"
#include "platform/stoppable.h"

namespace inferkit {
namespace {

constexpr std::string_view kMl = "ai.onnx.ml", kMicrosoft = "com.microsoft";

/// What the readers of a value make of it.
struct Meaning {
  bool nan = false;             // a missing value
  bool asked = false;           // one of the readers asks what is NaN: the rest of the graph then knows of it
  bool asked_plus = false;      // the same of infinity
  bool asked_minus = false;     // and of minus infinity
  bool softmax = false;         // a Softmax is taken of it, in which minus infinity is a probability of 0
  bool minus_infinity = false;  // and something is added to it before: it masks
  bool plus_infinity = false;   // it is subtracted from that, and masks with the other sign
  Axes empty_axes = 0;

  /// Of what has both readers.
  void join(const Meaning& other) {
    nan &= other.nan;
    asked |= other.asked;
    asked_plus |= other.asked_plus;
    asked_minus |= other.asked_minus;
    softmax &= other.softmax;
    minus_infinity &= other.minus_infinity;
    plus_infinity &= other.plus_infinity;
    empty_axes &= other.empty_axes;
  }
};

/// Where the axes of an input lie in an output; nullopt is nowhere.
template <class Map>
Axes axes_before(Axes after, const Map& to) {
  Axes out = 0;
  for (size_t axis = 0; axis < Shape::kMaxRank; ++axis) {
    const std::optional<int64_t> there = to(static_cast<int64_t>(axis));
    if (there && *there >= 0 && *there < int64_t{Shape::kMaxRank} && (after >> *there & 1)) {
      out = static_cast<Axes>(out | 1u << axis);
    }
  }
  return out;
}

/// One graph, from its outputs back to its inputs.
class Walk {
 public:
  /// `outputs`: what becomes of the graph's outputs.
  Walk(const Graph& graph, std::span<const std::optional<Meaning>> outputs, std::span<const int> input_ranks)
      : graph_(graph),
        meanings_(graph.values.size()),
        ranks_(graph.values.size(), kUnknownRank),
        makers_(graph.values.size()),
        reads_(graph.values.size()),
        given_(graph.values.size(), true),
        long_axes_(graph.values.size()) {
    for (size_t i = 0; i < graph.inputs.size() && i < input_ranks.size(); ++i) rank(graph.inputs[i]) = input_ranks[i];
    for (const ValueId id : graph.inputs) {
      if (const auto& shape = graph.values[at(id)].shape) long_axes_[at(id)] = long_axes(*shape);
    }
    for (const auto& [id, tensor] : graph.constants) {
      rank(id) = static_cast<int>(tensor.shape.rank());
      long_axes_[at(id)] = long_axes(tensor.shape);
    }
    for (const Node& node : stoppable(graph.nodes)) {
      for (const ValueId id : node.inputs) {
        if (id != kNoValue) ++reads_[at(id)];
      }
      for (const auto& [name, attribute] : node.attributes) {
        const auto* body = std::get_if<std::shared_ptr<Graph>>(&attribute);
        if (!body) continue;
        for (const Capture& capture : (*body)->captures) ++reads_[at(capture.outer)];
      }
      for (const ValueId id : node.outputs) {
        if (id != kNoValue) makers_[at(id)] = &node;
      }
      find_rank(node);
      find_origin(node);
    }
    for (const ValueId id : graph.outputs) ++reads_[at(id)];
    for (const Node& node : stoppable(graph.nodes)) find_softmax(node);
    for (size_t i = 0; i < graph.outputs.size(); ++i)
      hear(graph.outputs[i], i < outputs.size() ? outputs[i] : Meaning{});
    for (const size_t i : stoppable_indices(graph.nodes.size())) {
      const Node& node = graph.nodes[graph.nodes.size() - 1 - i];
      if (node.op_type == "If" && node.domain.empty()) {
        hear_branches(node);
      } else {
        hear_bodies(node);
      }
      for (size_t k = 0; k < node.inputs.size(); ++k) {
        if (node.inputs[k] != kNoValue) hear(node.inputs[k], judge(node, k));
      }
    }
  }

  /// Nothing where nobody reads it.
  const std::optional<Meaning>& of(ValueId id) const { return meanings_[static_cast<size_t>(id)]; }

 private:
  static constexpr int kUnknownRank = -1;

  static size_t at(ValueId id) { return static_cast<size_t>(id); }

  int& rank(ValueId id) { return ranks_[static_cast<size_t>(id)]; }

  void hear(ValueId id, const std::optional<Meaning>& meaning) {
    std::optional<Meaning>& known = meanings_[static_cast<size_t>(id)];
    if (!meaning) return;
    if (known) {
      known->join(*meaning);
    } else {
      known = meaning;
    }
  }

  /// Only that of what follows the value below; where it is not known, an axis from the end is not either.
  void find_rank(const Node& node) {
    for (const ValueId id : node.outputs) {
      if (id == kNoValue) continue;
      const std::optional<Shape>& declared = graph_.values[static_cast<size_t>(id)].shape;
      if (declared) {
        rank(id) = static_cast<int>(declared->rank());
      } else if (const auto changed = changed_rank(node)) {
        rank(id) = *changed;
      } else if (is_one_of(node, "", {"Concat"})) {
        for (const ValueId in : node.inputs) {
          if (in != kNoValue) rank(id) = std::max(rank(id), rank(in));
        }
      } else if (!node.inputs.empty() && node.inputs[0] != kNoValue && keeps_axes(node)) {
        rank(id) = rank(node.inputs[0]);
      } else if (is_one_of(node, "", {"Gather"}) && node.inputs.size() > 1 && node.inputs[0] != kNoValue &&
                 node.inputs[1] != kNoValue) {
        const int of = rank(node.inputs[0]), indices = rank(node.inputs[1]);
        if (of != kUnknownRank && indices != kUnknownRank) rank(id) = of - 1 + indices;
      }
    }
  }

  static bool is_one_of(const Node& node, std::string_view domain, std::initializer_list<std::string_view> names) {
    return node.domain == domain && std::ranges::find(names, node.op_type) != names.end();
  }

  bool keeps_axes(const Node& node) const {
    return is_one_of(node, "", {"Identity", "Cast", "Transpose", "Split", "Slice", "Dropout"}) ||
           scales_by_one_number(node);
  }

  static bool is_dequantized(const Node& node) {
    return node.op_type == "DequantizeLinear" && (node.domain.empty() || node.domain == kMicrosoft);
  }

  /// The node that gives the value; null for inputs, constants and captures.
  const Node* maker(ValueId id) const { return id == kNoValue ? nullptr : makers_[static_cast<size_t>(id)]; }
  int reads(ValueId id) const { return reads_[at(id)]; }

  /// The numbers of a constant input, or of the attribute that older opsets have in its place, no more of them than a
  /// tensor has axes.
  std::optional<std::vector<int64_t>> ints(const Node& node, size_t i, std::string_view attribute) const {
    std::span<const int64_t> numbers;
    if (const auto it = node.attributes.find(attribute); it != node.attributes.end()) {
      const auto* list = std::get_if<std::vector<int64_t>>(&it->second);
      if (!list) return std::nullopt;
      numbers = *list;
    } else {
      if (i >= node.inputs.size() || node.inputs[i] == kNoValue) return std::nullopt;
      const Tensor* constant = graph_.constant(node.inputs[i]);
      if (!constant || constant->dtype != DType::kI64 || constant->shape.rank() > 1) return std::nullopt;
      numbers = {constant->as<int64_t>(), static_cast<size_t>(constant->shape.elements())};
    }
    if (numbers.size() > Shape::kMaxRank) return std::nullopt;
    return std::vector<int64_t>(numbers.begin(), numbers.end());
  }

  /// Of a Squeeze or an Unsqueeze: the axes that are taken away or put in, a bit for each.
  std::optional<Axes> squeezed(const Node& node) const {
    const auto axes = ints(node, 1, "axes");
    const int of = node.inputs.empty() || node.inputs[0] == kNoValue ? kUnknownRank : ranks_[at(node.inputs[0])];
    if (!axes) return std::nullopt;
    const bool more = node.op_type == "Unsqueeze";
    Axes out = 0;
    for (const int64_t axis : *axes) {
      const auto there = axis_of(axis, of == kUnknownRank || !more ? of : of + static_cast<int>(axes->size()));
      if (!there) return std::nullopt;
      out = static_cast<Axes>(out | 1u << *there);
    }
    return out;
  }

  /// That of what a node gives which takes axes away or puts some in.
  std::optional<int> changed_rank(const Node& node) const {
    if (!is_one_of(node, "", {"Reshape", "Squeeze", "Unsqueeze"}) || node.inputs.empty()) return std::nullopt;
    if (node.op_type == "Reshape") {
      const auto shape = ints(node, 1, "shape");
      return shape ? std::optional(static_cast<int>(shape->size())) : std::nullopt;
    }
    const auto axes = squeezed(node);
    const int of = node.inputs[0] == kNoValue ? kUnknownRank : ranks_[at(node.inputs[0])];
    if (!axes || of == kUnknownRank) return std::nullopt;
    return std::max(node.op_type == "Squeeze" ? of - std::popcount(*axes) : of + std::popcount(*axes), kUnknownRank);
  }

  /// Marks what a Softmax is spelled out with, and nothing else reads: e = exp(s - max(s)), e / sum(e).
  void find_softmax(const Node& div) {
    if (!is_one_of(div, "", {"Div"}) || div.inputs.size() != 2) return;
    const Node* const exp = maker(div.inputs[0]);
    const Node* const sum = maker(div.inputs[1]);
    if (!exp || !sum || !is_one_of(*exp, "", {"Exp"}) || !is_one_of(*sum, "", {"ReduceSum"})) return;
    if (exp->inputs.size() != 1 || sum->inputs.empty() || sum->inputs[0] != div.inputs[0]) return;
    const Node* const sub = maker(exp->inputs[0]);
    if (!sub || !is_one_of(*sub, "", {"Sub"}) || sub->inputs.size() != 2) return;
    const Node* const max = maker(sub->inputs[1]);
    if (!max || !is_one_of(*max, "", {"ReduceMax"}) || max->inputs[0] != sub->inputs[0]) return;
    if (reads(div.inputs[0]) != 2 || reads(div.inputs[1]) != 1) return;
    if (reads(exp->inputs[0]) != 1 || reads(sub->inputs[1]) != 1) return;
    softmax_parts_.insert({sub, max});
  }

  /// Whether the values of input `k`, but for NaN or infinity, are what a Where gives: its condition asks for those.
  bool replaces_what_it_asks(const Node& node, size_t k) const {
    if (!is_one_of(node, "", {"Where"}) || k == 0 || node.inputs.size() != 3) return false;
    bool asks_in = true;  // whether the condition holds for NaN or infinity, or for the others
    const Node* condition = maker(node.inputs[0]);
    if (condition && is_one_of(*condition, "", {"Not"})) {
      asks_in = false;
      condition = condition->inputs.empty() ? nullptr : maker(condition->inputs[0]);
    }
    if (!condition || condition->inputs.empty() || condition->inputs[0] != node.inputs[k]) return false;
    if (compares_with_itself(*condition)) {
      asks_in = !asks_in;
    } else if (!is_one_of(*condition, "", {"IsNaN", "IsInf"})) {
      return false;
    }
    return k == (asks_in ? size_t{2} : size_t{1});
  }

  /// x == x: all but NaN.
  static bool compares_with_itself(const Node& node) {
    return is_one_of(node, "", {"Equal"}) && node.inputs.size() == 2 && node.inputs[0] == node.inputs[1];
  }

  /// A number from 0 on; nothing where it is out of range or the rank is not known.
  static std::optional<int64_t> axis_of(int64_t axis, int of_rank) {
    if (axis < 0) axis = of_rank == kUnknownRank ? -1 : axis + of_rank;
    return axis < 0 || axis >= int64_t{Shape::kMaxRank} ? std::nullopt : std::optional(axis);
  }

  /// What the readers of the node's outputs make of them all; nothing where there are none.
  std::optional<Meaning> result(const Node& node) const {
    std::optional<Meaning> out;
    for (const ValueId id : node.outputs) {
      if (id == kNoValue || !of(id)) continue;
      if (out) {
        out->join(*of(id));
      } else {
        out = of(id);
      }
    }
    return out;
  }

  /// What the branches read of this graph has the meaning that it has in them.
  void hear_branches(const Node& node) {
    std::vector<std::optional<Meaning>> outputs;
    for (const ValueId id : node.outputs) outputs.push_back(id == kNoValue ? std::nullopt : of(id));
    for (const auto& [name, attribute] : node.attributes) {
      const auto* branch = std::get_if<std::shared_ptr<Graph>>(&attribute);
      if (!branch) continue;
      const Walk inside(**branch, outputs, {});
      for (const Capture& capture : (*branch)->captures) hear(capture.outer, inside.of(capture.inner));
    }
  }

  void hear_bodies(const Node& node) {
    for (const auto& [name, attribute] : node.attributes) {
      const auto* body = std::get_if<std::shared_ptr<Graph>>(&attribute);
      if (!body) continue;
      for (const Capture& capture : (*body)->captures) hear(capture.outer, Meaning{});
    }
  }

  /// What the node makes of its input `k`; nothing where it does not look at the values, or nobody at its own.
  std::optional<Meaning> judge(const Node& node, size_t k) {
    const std::optional<Meaning> after = result(node);
    if (!after) return std::nullopt;
    if (is_one_of(node, "", {"Shape", "Size"})) return std::nullopt;
    Meaning out;
    if (moves_values(node, k)) {
      out = *after;
      if (!keeps_all(node) && !replaces_what_it_asks(node, k))
        out.asked = out.asked_plus = out.asked_minus = false;  // of the rest nobody has asked
      out.empty_axes = 0;
    } else if (is_one_of(node, "", {"Add", "Sub", "Mul", "Div", "Sum"}) || is_one_of(node, kMl, {"Scaler"})) {
      out.nan = after->nan;  // NaN stays NaN
    }
    judge_values(node, k, *after, out);
    out.empty_axes = empty_axes(node, k, after->empty_axes);
    return out;
  }

  static bool keeps_all(const Node& node) {
    return is_one_of(node, "", {"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"});
  }

  /// Whether the values of the input are those of the output, wherever they lie there.
  static bool moves_values(const Node& node, size_t k) {
    if (is_one_of(node, "", {"Concat"}) || is_one_of(node, kMl, {"FeatureVectorizer"})) return true;
    if (k != 0) return node.op_type == "Where" && node.domain.empty();
    if (is_one_of(node, "", {"Cast"})) {
      switch (int_attr(node, "to", 0)) {
        case 1:   // float
        case 10:  // float16
        case 11:  // double
        case 16:  // bfloat16
          return true;
        default:
          return false;
      }
    }
    return is_one_of(node, "",
                     {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Gather", "GatherElements",
                      "GatherND", "Slice", "Split", "Expand", "Tile", "Dropout"}) ||
           is_one_of(node, kMl, {"ArrayFeatureExtractor"});
  }

  void judge_values(const Node& node, size_t k, const Meaning& after, Meaning& out) const {
    if (is_one_of(node, "", {"IsNaN"}) || compares_with_itself(node)) out.asked = true;
    if (k == 0 && replaces_nan(node)) out.nan = true;
    if (is_one_of(node, "", {"IsInf"})) {
      out.asked_plus = int_attr(node, "detect_positive", 1) != 0;
      out.asked_minus = int_attr(node, "detect_negative", 1) != 0;
    }
    if (k == 0 && is_one_of(node, "", {"Softmax", "LogSoftmax"})) out.softmax = true;
    if (softmax_parts_.contains(&node)) {
      if (k == 0) out.softmax = true;
      return;
    }
    if (is_one_of(node, "", {"Add", "Sum"}) || (is_one_of(node, "", {"Sub"}) && k == 0)) {
      out.softmax = after.softmax;
      out.minus_infinity = after.minus_infinity || (after.softmax && has_other_value(node, k));
      out.plus_infinity = after.plus_infinity;
    } else if (is_one_of(node, "", {"Sub"})) {
      out.plus_infinity = after.minus_infinity || (after.softmax && has_other_value(node, k));
      out.minus_infinity = after.plus_infinity;
    }
    if (is_one_of(node, "", {"Where"}) && k != 0) out.minus_infinity = after.minus_infinity || after.softmax;
    if (is_one_of(node, "", {"Max"}) || (scales_by_a_positive(node) && k == 0)) {
      out.softmax = after.softmax;
      out.minus_infinity = after.minus_infinity;
      out.plus_infinity = after.plus_infinity;
    }
    if ((k == 3 && is_one_of(node, "", {"Attention"})) ||
        (k == 5 && is_one_of(node, kMicrosoft, {"Attention", "MultiHeadAttention"})) ||
        (k == 10 && is_one_of(node, kMicrosoft, {"GroupQueryAttention"}))) {
      out.minus_infinity = true;
    }
  }

  /// Whether the node reads something besides input `k` that is no constant.
  bool has_other_value(const Node& node, size_t k) const {
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      if (i != k && node.inputs[i] != kNoValue && !graph_.constant(node.inputs[i])) return true;
    }
    return false;
  }

  /// Whether one of the keys is NaN.
  static bool maps_nan(const Node& node) {
    const auto floats = node.attributes.find("keys_floats");
    if (floats != node.attributes.end()) {
      const auto* keys = std::get_if<FloatList>(&floats->second);
      if (keys && std::ranges::any_of(keys->values(), [](float key) { return std::isnan(key); })) return true;
    }
    const auto tensor = node.attributes.find("keys_tensor");
    const auto* keys = tensor == node.attributes.end() ? nullptr : std::get_if<Tensor>(&tensor->second);
    if (!keys) return false;
    const auto any_nan = [&]<class T>(const T* values) {
      return std::any_of(values, values + keys->shape.elements(), [](T key) { return std::isnan(key); });
    };
    return (keys->dtype == DType::kF32 && any_nan(keys->as<float>())) ||
           (keys->dtype == DType::kF64 && any_nan(keys->as<double>()));
  }

  static bool replaces_nan(const Node& node) {
    if (is_one_of(node, kMl, {"LabelEncoder"})) return maps_nan(node);
    if (is_one_of(node, kMl, {"Imputer"})) return std::isnan(float_attr(node, "replaced_value_float", 0));
    if (!is_one_of(node, kMl, {"TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"})) return false;
    const auto it = node.attributes.find("nodes_missing_value_tracks_true");
    if (it == node.attributes.end()) return false;
    const auto* tracks = std::get_if<std::vector<int64_t>>(&it->second);
    return tracks && std::ranges::any_of(*tracks, [](int64_t track) { return track != 0; });
  }

  bool scales_by_a_positive(const Node& node) const {
    if (!is_one_of(node, "", {"Mul", "Div"}) || node.inputs.size() != 2 || node.inputs[1] == kNoValue) return false;
    const Tensor* by = graph_.constant(node.inputs[1]);
    if (!by || by->shape.checked_elements() != 1) return false;
    if (by->dtype == DType::kF32) return *by->as<float>() > 0 && std::isfinite(*by->as<float>());
    if (by->dtype == DType::kF64) return *by->as<double>() > 0 && std::isfinite(*by->as<double>());
    return false;
  }

  Axes empty_axes(const Node& node, size_t k, Axes after) {
    const auto bit = [](std::optional<int64_t> axis) { return axis ? static_cast<Axes>(1u << *axis) : Axes{0}; };
    if (is_one_of(node, "", {"Concat"})) {
      if (node.inputs.size() < 2) return after;
      // One of them must not be empty, or nothing need be left.
      if (k == never_empty_.at(&node)) return 0;
      const bool gives = !node.outputs.empty() && node.outputs[0] != kNoValue;
      const int of_rank = std::max(rank(node.inputs[k]), gives ? rank(node.outputs[0]) : kUnknownRank);
      const Axes longer = bit(axis_of(int_attr(node, "axis", 0), of_rank));
      return longer ? static_cast<Axes>(after | longer) : Axes{0};
    }
    if ((is_one_of(node, "", {"Attention"}) && (k == 4 || k == 5)) ||
        (is_one_of(node, kMicrosoft, {"MultiHeadAttention"}) && (k == 6 || k == 7)) ||
        (is_one_of(node, kMicrosoft, {"GroupQueryAttention"}) && (k == 3 || k == 4))) {
      return bit(2);  // past keys and values: (batch, heads, past, size)
    }
    if (is_one_of(node, kMicrosoft, {"Attention"}) && k == 4) return bit(3);  // (2, batch, heads, past, size)
    if (k != 0) return 0;
    // What is empty stays so wherever it is cut.
    if (is_one_of(node, "", {"Identity", "Cast", "Dropout", "Slice"})) return after;
    if (is_one_of(node, "", {"Mul", "Div"}) || is_dequantized(node))
      return scales_by_one_number(node) ? after : Axes{0};
    if (is_one_of(node, "", {"Squeeze", "Unsqueeze"})) return before_squeeze(node, after);
    if (is_one_of(node, "", {"Reshape"})) return before_reshape(node, after);
    if (is_one_of(node, "", {"Transpose"})) return before_transpose(node, after);
    const int of_rank = rank(node.inputs[0]);
    if (is_one_of(node, "", {"Split"})) {
      const auto split = axis_of(int_attr(node, "axis", 0), of_rank);
      return split ? static_cast<Axes>(after & ~(1u << *split)) : Axes{0};
    }
    if (is_one_of(node, "", {"Gather"})) {
      const auto from = axis_of(int_attr(node, "axis", 0), of_rank);
      const int indices = node.inputs.size() < 2 || node.inputs[1] == kNoValue ? kUnknownRank : rank(node.inputs[1]);
      if (!from || indices == kUnknownRank) return 0;
      return axes_before(after, [&](int64_t axis) -> std::optional<int64_t> {
        if (axis == *from) return std::nullopt;
        return axis < *from ? axis : axis - 1 + indices;
      });
    }
    return 0;
  }

  /// The input of a Concat that must not be empty: one that never is, or else what the graph computes rather than what
  /// it is given, as a decoder is its past; and the last of several.
  size_t never_empty(const Node& node) {
    size_t computed = node.inputs.size(), last = 0;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const ValueId id = node.inputs[i];
      if (id == kNoValue) continue;
      const auto axis = axis_of(int_attr(node, "axis", 0), rank(id));
      if (axis && (long_axes_[at(id)] >> *axis & 1)) return i;
      if (graph_.constant(id)) continue;
      last = i;
      if (!given_[at(id)]) computed = i;
    }
    return computed < node.inputs.size() ? computed : last;
  }

  /// What is known of where a value comes from: as it is from an input or from the graph around this one, and which of
  /// its axes have elements whatever comes in.
  void find_origin(const Node& node) {
    if (node.inputs.empty() || node.inputs[0] == kNoValue) {
      for (const ValueId id : node.outputs) {
        if (id != kNoValue) given_[at(id)] = false;
      }
      return;
    }
    const size_t first = at(node.inputs[0]);
    const bool moves =
        scales_by_one_number(node) || is_one_of(node, "",
                                                {"Identity", "Cast", "Transpose", "Split", "Slice", "Dropout",
                                                 "Reshape", "Squeeze", "Unsqueeze", "Gather"});
    for (const ValueId id : node.outputs) {
      if (id == kNoValue) continue;
      given_[at(id)] = moves && given_[first];
      if (is_one_of(node, "", {"Identity", "Cast"})) long_axes_[at(id)] = long_axes_[first];
    }
    if (is_one_of(node, "", {"Concat"})) never_empty_.emplace(&node, never_empty(node));
  }

  static Axes long_axes(const Shape& shape) {
    Axes out = 0;
    for (size_t i = 0; i < shape.rank(); ++i) {
      if (shape[i] > 0) out = static_cast<Axes>(out | 1u << i);
    }
    return out;
  }

  bool scales_by_one_number(const Node& node) const {
    if (!is_one_of(node, "", {"Mul", "Div"}) && !is_dequantized(node)) return false;
    if (node.inputs.size() < 2 || node.inputs[1] == kNoValue) return false;
    const Tensor* by = graph_.constant(node.inputs[1]);
    return by && by->shape.rank() <= 1 && by->shape.elements() == 1;
  }

  Axes before_squeeze(const Node& node, Axes after) const {
    const auto changed = squeezed(node);
    if (!changed) return 0;
    if (node.op_type == "Squeeze") {
      return axes_before(after, [&](int64_t axis) -> std::optional<int64_t> {
        if (*changed >> axis & 1) return std::nullopt;
        return axis - std::popcount(static_cast<Axes>(*changed & ((1u << axis) - 1)));
      });
    }
    return axes_before(after, [&](int64_t axis) -> std::optional<int64_t> {
      for (int64_t there = 0; there < int64_t{Shape::kMaxRank}; ++there) {
        if (!(*changed >> there & 1) && axis-- == 0) return there;
      }
      return std::nullopt;
    });
  }

  /// Of a constant shape: a 0 keeps an axis. Of what it does not keep, nothing is left for -1 where one is empty.
  Axes before_reshape(const Node& node, Axes after) const {
    const auto shape = ints(node, 1, "shape");
    if (!shape || int_attr(node, "allowzero", 0) != 0) return 0;
    const auto rest = std::ranges::find(*shape, -1);
    const auto size = static_cast<int64_t>(shape->size());
    return axes_before(after, [&](int64_t axis) -> std::optional<int64_t> {
      const bool kept = axis < size && (*shape)[static_cast<size_t>(axis)] == 0;
      if (rest == shape->end()) return kept ? std::optional(axis) : std::nullopt;
      return kept ? std::nullopt : std::optional<int64_t>(rest - shape->begin());
    });
  }

  Axes before_transpose(const Node& node, Axes after) {
    const auto it = node.attributes.find("perm");
    const auto* perm = it == node.attributes.end() ? nullptr : std::get_if<std::vector<int64_t>>(&it->second);
    const int of_rank = rank(node.inputs[0]);
    return axes_before(after, [&](int64_t axis) -> std::optional<int64_t> {
      if (!perm) return of_rank == kUnknownRank ? std::nullopt : std::optional<int64_t>(of_rank - 1 - axis);
      const auto at = std::ranges::find(*perm, axis);
      return at == perm->end() ? std::nullopt : std::optional<int64_t>(at - perm->begin());
    });
  }

  const Graph& graph_;
  std::vector<std::optional<Meaning>> meanings_;
  std::vector<int> ranks_;
  std::vector<const Node*> makers_;
  std::vector<int> reads_;                         // by nodes of this graph, by what is captured and as outputs
  std::unordered_set<const Node*> softmax_parts_;  // what takes s in a Softmax that is spelled out
  std::vector<bool> given_;
  std::vector<Axes> long_axes_;
  std::unordered_map<const Node*, size_t> never_empty_;  // of each Concat
};

}  // namespace

std::vector<InputSense> input_senses(const Graph& graph) {
  std::vector<int> ranks;
  for (const ValueId id : graph.inputs) {
    const Value& value = graph.values[static_cast<size_t>(id)];
    ranks.push_back(value.shape ? static_cast<int>(value.shape->rank()) : -1);
  }
  const Walk walk(graph, {}, ranks);
  std::vector<InputSense> out;
  for (size_t i = 0; i < graph.inputs.size(); ++i) {
    InputSense& sense = out.emplace_back();
    const std::optional<Meaning>& meaning = walk.of(graph.inputs[i]);
    if (!meaning) continue;
    const bool plus = meaning->plus_infinity || meaning->asked_plus;
    const bool minus = meaning->minus_infinity || meaning->asked_minus;
    if (meaning->nan || meaning->asked) {
      sense.non_finite = plus && minus ? NonFinite::kAll : NonFinite::kNan;
    } else if (plus || minus) {
      sense.non_finite = !plus ? NonFinite::kMinusInfinity : !minus ? NonFinite::kPlusInfinity : NonFinite::kInfinity;
    }
    sense.empty_axes = meaning->empty_axes;
  }
  return out;
}

}  // namespace inferkit
