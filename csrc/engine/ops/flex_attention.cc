// FlexAttention of ONNX's preview domain: attention whose scores, and whose weights behind the softmax, go through
// graphs that the model brings. It is spelled out, with those graphs in their places.
#include <string>

#include "base/counted.h"
#include "engine/compile/expand.h"
#include "graph/onnx_tensor.h"

namespace inferkit {
namespace {

enum Input : size_t { kQ, kK, kV };

/// Softmax and the graphs work in this type where the node asks for one. Halves are float32 by now, those of the graphs
/// as well (docs/decisions/029-halves-are-widened.md).
std::optional<int64_t> precision_of(const Expansion& e) {
  const int64_t code = e.attr("softmax_precision", int64_t{0});
  if (code == 0) return std::nullopt;
  const auto dtype = onnx::dtype_of(static_cast<int32_t>(code));
  if (!dtype || !is_float(*dtype)) e.refuse(cat("softmax_precision ", code));
  return dtype == DType::kF64 ? code : int64_t{1};
}

/// `x` behind the graph that the attribute holds, if there is one.
ValueId modified(Expansion& e, std::string_view name, ValueId x) {
  const auto it = e.node().attributes.find(name);
  if (it == e.node().attributes.end()) return x;
  const auto* body = std::get_if<std::shared_ptr<Graph>>(&it->second);
  if (!body || !*body) throw Error(ErrorCode::kModel, cat(e.node().label(), ": ", name, " must be a graph"));
  if ((*body)->inputs.size() != 1 || (*body)->outputs.size() != 1) {
    throw Error(ErrorCode::kModel, cat(e.node().label(), ": ", name, " has ", counted((*body)->inputs.size(), "input"),
                                       " and ", counted((*body)->outputs.size(), "output"), "; expected one of each"));
  }
  return e.add_body(**body, std::span(&x, 1))[0];
}

void expand_flex_attention(Expansion& e) {
  const std::optional<int64_t> precision = precision_of(e);
  const auto size = [&](ValueId of, int64_t axis) {
    return e.add("Shape", 15, {of}, {{"start", axis}, {"end", axis + 1}});
  };
  const auto concat = [&](std::vector<ValueId> sizes) {
    return e.add("Concat", 13, std::move(sizes), {{"axis", int64_t{0}}});
  };
  const auto reshape = [&](ValueId x, std::vector<ValueId> sizes) {
    return e.add("Reshape", 14, {x, concat(std::move(sizes))});
  };
  const ValueId same = e.integers({0}), rest = e.integers({-1});
  const ValueId rows = size(e.in(kQ), 2), kv_heads = size(e.in(kK), 1);

  // The heads that share keys are rows of one product.
  const ValueId q = reshape(e.in(kQ), {same, kv_heads, rest, size(e.in(kK), 3)});
  const ValueId k = e.add("Transpose", 13, {e.in(kK)}, {{"perm", std::vector<int64_t>{0, 1, 3, 2}}});
  ValueId scale = kNoValue;
  if (e.node().attributes.contains("scale")) {
    scale = e.number(e.attr("scale", 1.0f));
  } else {
    const ValueId width = e.add("Cast", 13, {size(e.in(kQ), 3)}, {{"to", int64_t{11}}});  // in double
    scale = e.add("Reciprocal", 13, {e.add("Sqrt", 13, {width})});
  }
  ValueId scores = e.add("MatMul", 13, {q, k});
  scores = e.add("Mul", 14, {scores, e.add("CastLike", 15, {scale, scores})});
  scores = reshape(scores, {same, rest, rows, size(e.in(kK), 2)});
  if (precision) scores = e.add("Cast", 13, {scores}, {{"to", *precision}});
  scores = modified(e, "score_mod", scores);
  ValueId weights = e.add("Softmax", 13, {scores}, {{"axis", int64_t{-1}}});
  weights = modified(e, "prob_mod", weights);
  if (precision) weights = e.add("CastLike", 15, {weights, e.in(kV)});
  weights = reshape(weights, {same, kv_heads, rest, size(e.in(kK), 2)});
  e.give(0, reshape(e.add("MatMul", 13, {weights, e.in(kV)}), {same, rest, rows, size(e.in(kV), 3)}));
}

}  // namespace

void register_flex_attention(OpRegistry& r) {
  add_expanded(
      r, {.domain = "ai.onnx.preview", .name = "FlexAttention", .min_inputs = 3, .max_inputs = 3, .max_outputs = 1},
      expand_flex_attention);
}

}  // namespace inferkit
