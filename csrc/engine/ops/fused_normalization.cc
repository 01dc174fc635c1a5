// The normalisations of ONNX Runtime's optimiser: SimplifiedLayerNormalization, SkipLayerNormalization,
// SkipSimplifiedLayerNormalization, EmbedLayerNormalization, QEmbedLayerNormalization. All are spelled out in ONNX's
// operators.
#include "engine/compile/expand.h"

namespace inferkit {
namespace {

using Attributes = Expansion::Attributes;

constexpr int kLayerNormOpset = 17, kRmsNormOpset = 23, kAddOpset = 14;
constexpr float kSkipEpsilon = 1e-12f;  // where the node names none

void refuse_statistics(const Expansion& e, size_t first, size_t last) {
  for (size_t o = first; o <= last; ++o) {
    if (e.wants(o)) e.refuse("the statistics of training");
  }
}

void expand_simplified(Expansion& e) {
  refuse_statistics(e, 1, 1);
  e.give(0, e.add("RMSNormalization", kRmsNormOpset, {e.in(0), e.in(1)}, e.keep({"axis", "epsilon", "stash_type"})));
}

Attributes epsilon(const Expansion& e) { return {{"axis", int64_t{-1}}, {"epsilon", e.attr("epsilon", kSkipEpsilon)}}; }

/// Inputs: x, skip, gamma, then (beta,) bias.
void expand_skip(Expansion& e) {
  refuse_statistics(e, 1, 2);
  const bool simplified = e.node().op_type == "SkipSimplifiedLayerNormalization";
  const size_t bias = simplified ? 3 : 4;
  ValueId sum = e.add("Add", kAddOpset, {e.in(0), e.in(1)});
  if (e.has(bias)) sum = e.add("Add", kAddOpset, {sum, e.in(bias)});
  e.give(0, simplified ? e.add("RMSNormalization", kRmsNormOpset, {sum, e.in(2)}, epsilon(e))
                       : e.add("LayerNormalization", kLayerNormOpset, {sum, e.in(2), e.in(3)}, epsilon(e)));
  if (e.wants(3)) e.give(3, sum);
}

enum EmbedInput : size_t { kIds, kSegments, kWords, kPositions, kSegmentTable, kGamma, kBeta, kMask, kPositionIds };

/// How many ones each row of the mask has, as int32; zeros where there is no mask.
ValueId mask_index(Expansion& e) {
  constexpr int64_t kInt32 = 6;
  const ValueId rows = e.has(kMask) ? e.in(kMask) : e.in(kIds);
  const ValueId one = e.add("CastLike", 15, {e.number(e.has(kMask) ? 1.0f : -1.0f), rows});
  const ValueId hits = e.add("Cast", 13, {e.add("Equal", 13, {rows, one})}, {{"to", kInt32}});
  const ValueId counted = e.has(kMask) ? hits : e.add("Sub", kAddOpset, {hits, hits});
  return e.add("ReduceSum", 13, {counted, e.integers({1})}, {{"keepdims", int64_t{0}}});
}

/// QEmbedLayerNormalization holds words, positions, segments, gamma and beta as bytes: their scales and zero points
/// begin here.
constexpr size_t kScales = 8, kZeroPoints = 13;

ValueId dequantized(Expansion& e, ValueId id, size_t table) {
  if (e.node().op_type == "EmbedLayerNormalization") return id;
  const size_t i = table == kGamma || table == kBeta ? table - kGamma + 3 : table - kWords;
  return e.add("DequantizeLinear", 21, {id, e.in(kScales + i), e.in(kZeroPoints + i)});
}

ValueId looked_up(Expansion& e, size_t table, ValueId ids) {
  return dequantized(e, e.add("Gather", 13, {e.in(table), ids}), table);
}

void expand_embed(Expansion& e) {
  if (e.has(kSegments) != e.has(kSegmentTable)) e.refuse("segments without their table, or a table without segments");
  const bool quantized = e.node().op_type != "EmbedLayerNormalization";
  ValueId positions = kNoValue;
  if (!quantized && e.has(kPositionIds)) {
    positions = looked_up(e, kPositions, e.in(kPositionIds));
  } else {
    const ValueId length = e.add("Shape", 15, {e.in(kIds)}, {{"start", int64_t{1}}, {"end", int64_t{2}}});
    const ValueId rows = e.add("Slice", 13, {e.in(kPositions), e.integers({0}), length, e.integers({0})});
    positions = dequantized(e, rows, kPositions);
  }
  ValueId sum = e.add("Add", kAddOpset, {looked_up(e, kWords, e.in(kIds)), positions});
  if (e.has(kSegments)) sum = e.add("Add", kAddOpset, {sum, looked_up(e, kSegmentTable, e.in(kSegments))});
  const ValueId gamma = dequantized(e, e.in(kGamma), kGamma), beta = dequantized(e, e.in(kBeta), kBeta);
  e.give(0, e.add("LayerNormalization", kLayerNormOpset, {sum, gamma, beta}, epsilon(e)));
  if (e.wants(1)) e.give(1, mask_index(e));
  if (!quantized && e.wants(2)) e.give(2, sum);
}

void add(OpRegistry& r, std::string_view name, int min_inputs, int max_inputs, int max_outputs, ExpandFn expand) {
  add_expanded(r,
               {.domain = kMicrosoft,
                .name = name,
                .min_inputs = min_inputs,
                .max_inputs = max_inputs,
                .max_outputs = max_outputs},
               expand);
}

}  // namespace

void register_fused_normalization(OpRegistry& r) {
  // ONNX Runtime writes it in the ONNX domain, which has no such operator.
  add_expanded(
      r, {.domain = kOnnx, .name = "SimplifiedLayerNormalization", .min_inputs = 2, .max_inputs = 2, .max_outputs = 2},
      expand_simplified);
  add(r, "SkipLayerNormalization", 3, 5, 4, expand_skip);
  add(r, "SkipSimplifiedLayerNormalization", 3, 4, 4, expand_skip);
  add(r, "EmbedLayerNormalization", 7, 9, 3, expand_embed);
  add(r, "QEmbedLayerNormalization", 18, 18, 2, expand_embed);
}

}  // namespace inferkit
