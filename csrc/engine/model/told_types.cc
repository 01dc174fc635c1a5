#include "engine/model/told_types.h"

#include <algorithm>
#include <string_view>

#include "graph/onnx_tensor.h"
#include "graph/passes/pattern.h"
#include "platform/stoppable.h"

namespace inferkit {
namespace {

using Told = std::optional<DType>;

/// Beside those of keeps_type.
constexpr std::string_view kKeepTypeToo =
    " AffineGrid BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CenterCropPad Col2Im Compress CumProd "
    "DeformConv Det Einsum GRU GlobalLpPool GridSample Hardmax LSTM LpNormalization LpPool MaxRoiPool MaxUnpool "
    "MeanVarianceNormalization Mod RMSNormalization RNN Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp "
    "ReduceMax ReduceMin ReduceProd ReduceSumSquare ReverseSequence RoiAlign RotaryEmbedding Scatter "
    "ScatterElements ScatterND Shrink Sign SpaceToDepth Split Sum Tile TopK Trilu Unique Unsqueeze ";

bool has_name(std::string_view list, const Node& node) { return list.find(" " + node.op_type + " ") != list.npos; }

template <class T>
const T* attribute_of(const Node& node, std::string_view name) {
  const auto it = node.attributes.find(name);
  return it == node.attributes.end() ? nullptr : std::get_if<T>(&it->second);
}

const Graph* body_of(const Node& node, std::string_view name) {
  const auto* body = attribute_of<std::shared_ptr<Graph>>(node, name);
  return body ? body->get() : nullptr;
}

/// One graph, from its inputs on to its outputs.
class TypeWalk {
 public:
  /// `inputs`: of those of a body, of which the file need not declare anything. `outer`: of what it captures.
  TypeWalk(const Graph& graph, const std::vector<Told>& inputs, const TypeWalk* outer)
      : graph_(graph), types_(graph.values.size()) {
    for (size_t i = 0; i < graph.inputs.size(); ++i) {
      Told& type = of(graph.inputs[i]);
      type = i < inputs.size() ? inputs[i] : Told();
      if (!type) type = graph.values[static_cast<size_t>(graph.inputs[i])].dtype;
    }
    for (const auto& [id, tensor] : graph.constants) of(id) = tensor.dtype;
    for (const Capture& capture : graph.captures) {
      if (outer) of(capture.inner) = outer->at(capture.outer);
    }
    for (const Node& node : stoppable(graph.nodes)) {
      const std::vector<Told> told = has_body(node) ? by_body(node) : std::vector<Told>();
      for (size_t k = 0; k < node.outputs.size(); ++k) {
        const ValueId id = node.outputs[k];
        if (id == kNoValue) continue;
        of(id) = k < told.size() ? told[k] : by_schema(node, k);
        if (!of(id)) of(id) = graph.values[static_cast<size_t>(id)].dtype;
      }
    }
  }

  Told at(ValueId id) const { return id == kNoValue ? Told() : types_[static_cast<size_t>(id)]; }

  std::vector<Told> outputs() const {
    std::vector<Told> out;
    for (const ValueId id : graph_.outputs) out.push_back(at(id));
    return out;
  }

 private:
  Told& of(ValueId id) { return types_[static_cast<size_t>(id)]; }

  Told of_input(const Node& node, size_t i) const { return i < node.inputs.size() ? at(node.inputs[i]) : Told(); }

  static bool has_body(const Node& node) {
    return node.domain.empty() && (node.op_type == "If" || node.op_type == "Loop" || node.op_type == "Scan");
  }

  std::vector<Told> by_body(const Node& node) const {
    if (node.op_type == "If") {
      std::vector<Told> out(node.outputs.size());
      for (const std::string_view name : {"then_branch", "else_branch"}) {
        const Graph* branch = body_of(node, name);
        if (!branch) continue;
        const std::vector<Told> told = TypeWalk(*branch, {}, this).outputs();
        for (size_t i = 0; i < std::min(out.size(), told.size()); ++i) {
          if (!out[i]) out[i] = told[i];
        }
      }
      return out;
    }
    const Graph* body = body_of(node, "body");
    if (!body) return {};
    const bool loop = node.op_type == "Loop";
    std::vector<Told> in;
    if (loop) in = {DType::kI64, DType::kBool};  // the iteration and the condition
    // Before opset 9, the first input of a Scan is lengths, which its body does not see.
    for (size_t i = loop ? 2 : node.version < 9 ? 1 : 0; i < node.inputs.size(); ++i) in.push_back(of_input(node, i));
    std::vector<Told> out = TypeWalk(*body, in, this).outputs();
    if (loop && !out.empty()) out.erase(out.begin());  // whether it goes on
    return out;
  }

  Told by_schema(const Node& node, size_t k) const {
    if (node.domain == "ai.onnx.ml") return of_classical(node, k);
    if (!node.domain.empty()) return {};
    if (has_name(" And Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Not Or RegexFullMatch Xor ", node))
      return DType::kBool;
    if (has_name(" ArgMax ArgMin NonMaxSuppression NonZero Shape Size ", node)) return DType::kI64;
    if (k > 0 && has_name(" MaxPool TopK Unique ", node)) return DType::kI64;
    if (has_name(" Cast ", node)) return onnx::dtype_of(static_cast<int32_t>(int_attr(node, "to", 0)));
    if (has_name(" CastLike DequantizeLinear Where ", node)) return number_or(node, "output_dtype", of_input(node, 1));
    if (has_name(" QuantizeLinear ", node))
      return number_or(node, "output_dtype", node.inputs.size() > 2 ? of_input(node, 2) : DType::kU8);
    if (has_name(" OneHot ", node)) return of_input(node, 2);
    if (has_name(" ConstantOfShape ", node)) {
      const auto* value = attribute_of<Tensor>(node, "value");
      return value ? value->dtype : DType::kF32;
    }
    if (has_name(" EyeLike ", node)) return number_or(node, "dtype", of_input(node, 0));
    if (has_name(" HammingWindow HannWindow BlackmanWindow MelWeightMatrix ", node))
      return number_or(node, "output_datatype", DType::kF32);
    if (!keeps_type(node) && !has_name(kKeepTypeToo, node)) return {};
    if (k > 0 && !has_name(" GRU LSTM RNN Split ", node)) return {};
    // All that have more than one input of the same type: the first of them that is known.
    if (has_name(" Add Concat Div Einsum MatMul Max Mean Min Mod Mul Range Sub Sum ", node)) {
      for (size_t i = 0; i < node.inputs.size(); ++i) {
        if (const Told type = of_input(node, i)) return type;
      }
    }
    return of_input(node, 0);
  }

  /// The type whose number the attribute is; `other` where it is 0 or absent.
  static Told number_or(const Node& node, std::string_view attribute, Told other) {
    const int64_t number = int_attr(node, attribute, 0);
    return number == 0 ? other : onnx::dtype_of(static_cast<int32_t>(number));
  }

  Told of_classical(const Node& node, size_t k) const {
    if (k == 1) return DType::kF32;  // the scores of a classifier
    if (has_name(
            " FeatureVectorizer LinearRegressor Normalizer OneHotEncoder SVMRegressor Scaler TreeEnsembleRegressor ",
            node))
      return DType::kF32;
    if (node.op_type.ends_with("Classifier")) {
      const auto* strings = attribute_of<std::vector<std::string>>(node, "classlabels_strings");
      return strings && !strings->empty() ? DType::kString : DType::kI64;
    }
    if (has_name(" LabelEncoder CategoryMapper ", node)) return of_labels(node);
    if (has_name(" ArrayFeatureExtractor Binarizer Imputer TreeEnsemble ", node)) return of_input(node, 0);
    // Its maps hold floats. What it is given has their type, unless the file is wrong.
    if (has_name(" ZipMap ", node)) return of_input(node, 0).value_or(DType::kF32);
    return {};
  }

  Told of_labels(const Node& node) const {
    if (node.attributes.contains("values_strings")) return DType::kString;
    if (node.attributes.contains("values_int64s")) return DType::kI64;
    if (node.attributes.contains("values_floats")) return DType::kF32;
    if (const auto* values = attribute_of<Tensor>(node, "values_tensor")) return values->dtype;
    // Words and their places, in either direction.
    const Told type = of_input(node, 0);
    return type ? Told(type == DType::kString ? DType::kI64 : DType::kString) : Told();
  }

  const Graph& graph_;
  std::vector<Told> types_;
};

}  // namespace

std::vector<std::optional<DType>> told_types(const Graph& graph) {
  const bool all = std::ranges::all_of(graph.outputs, [&](ValueId id) {
    const Value& declared = graph.values[static_cast<size_t>(id)];
    return declared.dtype || declared.list;
  });
  return all ? std::vector<Told>() : TypeWalk(graph, {}, nullptr).outputs();
}

}  // namespace inferkit
