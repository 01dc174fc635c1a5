// Operators as opsets before 7 had them: Add, Sub, Mul, Div, Pow, the comparisons, PRelu and Gemm, whose second operand
// was broadcast where an attribute said so, along axes from one that it named. Spelled out as their successors.
#include "engine/compile/expand.h"

namespace inferkit {
namespace {

constexpr int kLast = 6, kSuccessor = 7, kShapes = 13;

/// `b` with as many dimensions of 1 at its end as make its first one stand at dimension `axis` of `a`.
ValueId aligned(Expansion& e, ValueId a, ValueId b, int64_t axis) {
  const auto shape_of = [&](ValueId id) { return e.add("Shape", kShapes, {id}); };
  const ValueId shape = shape_of(b);
  const ValueId end = e.add("Add", kShapes, {shape_of(shape), e.integers({axis})});
  const ValueId count = e.add("Sub", kShapes, {shape_of(shape_of(a)), end});
  const int64_t one[] = {1};
  const ValueId ones =
      e.add("ConstantOfShape", 9, {count}, {{"value", make_tensor<int64_t>({1}, std::span<const int64_t>(one))}});
  return e.add("Reshape", kShapes, {b, e.add("Concat", kShapes, {shape, ones}, {{"axis", int64_t{0}}})});
}

void expand_binary(Expansion& e) {
  ValueId b = e.in(1);
  if (e.attr("broadcast", int64_t{0}) != 0 && e.node().attributes.contains("axis")) {
    const int64_t axis = e.attr("axis", int64_t{0});
    if (axis < 0) e.refuse("a negative axis");
    b = aligned(e, e.in(0), b, axis);
  }
  e.give(0, e.add(e.node().op_type, kSuccessor, {e.in(0), b}));
}

/// The slopes are those of the channels, or one for all.
void expand_prelu(Expansion& e) { e.give(0, e.add("PRelu", kSuccessor, {e.in(0), aligned(e, e.in(0), e.in(1), 1)})); }

void expand_gemm(Expansion& e) {
  e.give(0, e.add("Gemm", kSuccessor, {e.in(0), e.in(1), e.in(2)}, e.keep({"alpha", "beta", "transA", "transB"})));
}

}  // namespace

void register_legacy_broadcast(OpRegistry& r) {
  const auto add = [&](std::string_view name, int inputs, ExpandFn expand) {
    add_expanded(r, {.name = name, .until = kLast, .min_inputs = inputs, .max_inputs = inputs, .max_outputs = 1},
                 expand);
  };
  for (const char* name : {"Add", "Sub", "Mul", "Div", "Pow", "Equal", "Greater", "Less", "And", "Or", "Xor"}) {
    add(name, 2, expand_binary);
  }
  add("PRelu", 2, expand_prelu);
  add("Gemm", 3, expand_gemm);
}

}  // namespace inferkit
