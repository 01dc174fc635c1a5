// The activations of ONNX Runtime's optimiser: Gelu, BiasGelu, FastGelu, QuickGelu, BiasSplitGelu, BiasAdd. All are
// spelled out in ONNX's operators.
#include "engine/compile/expand.h"

namespace inferkit {
namespace {

constexpr int kGeluOpset = 20, kAddOpset = 14, kSwishOpset = 24;

ValueId with_bias(Expansion& e) { return e.has(1) ? e.add("Add", kAddOpset, {e.in(0), e.in(1)}) : e.in(0); }

/// Of x, with what the node says of its tail: see widen_halves.
ValueId gelu(Expansion& e, ValueId x, const char* approximate = "none") {
  Expansion::Attributes attributes = e.keep({kKeepsTail});
  attributes.emplace("approximate", std::string(approximate));
  return e.add("Gelu", kGeluOpset, {x}, std::move(attributes));
}

void expand_gelu(Expansion& e) { e.give(0, gelu(e, with_bias(e))); }

void expand_fast_gelu(Expansion& e) { e.give(0, gelu(e, with_bias(e), "tanh")); }

void expand_quick_gelu(Expansion& e) {
  e.give(0, e.add("Swish", kSwishOpset, {e.in(0)}, {{"alpha", e.attr("alpha", 1.702f)}}));
}

void expand_bias_split_gelu(Expansion& e) {
  const auto halves = e.add_many(2, "Split", 18, {with_bias(e)}, {{"axis", int64_t{-1}}, {"num_outputs", int64_t{2}}});
  e.give(0, e.add("Mul", kAddOpset, {halves[0], gelu(e, halves[1])}));
}

void expand_bias_add(Expansion& e) { e.give(0, e.add("Add", kAddOpset, {with_bias(e), e.in(2)})); }

void add(OpRegistry& r, std::string_view name, int min_inputs, int max_inputs, ExpandFn expand) {
  add_expanded(
      r, {.domain = kMicrosoft, .name = name, .min_inputs = min_inputs, .max_inputs = max_inputs, .max_outputs = 1},
      expand);
}

}  // namespace

void register_fused_activation(OpRegistry& r) {
  add(r, "Gelu", 1, 1, expand_gelu);
  add(r, "BiasGelu", 2, 2, expand_gelu);
  add(r, "FastGelu", 1, 2, expand_fast_gelu);
  add(r, "QuickGelu", 1, 1, expand_quick_gelu);
  add(r, "BiasSplitGelu", 2, 2, expand_bias_split_gelu);
  add(r, "BiasAdd", 3, 3, expand_bias_add);
}

}  // namespace inferkit
