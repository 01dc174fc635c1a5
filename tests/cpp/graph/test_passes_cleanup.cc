// Passes that remove or evaluate nodes: dead nodes, identities, constants.
#include "graph/passes/fold_constants.h"
#include "graph/passes/passes.h"
#include "graph_builder.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

/// A subgraph that reads `outer` and gives its Relu.
std::shared_ptr<Graph> branch_reading(ValueId outer) {
  auto sub = std::make_shared<Graph>();
  const ValueId inner = sub->add_value("captured");
  sub->captures.push_back({outer, inner});
  Node n;
  n.op_type = "Relu";
  n.version = 17;
  n.inputs = {inner};
  n.outputs = {sub->add_value("out")};
  sub->outputs = n.outputs;
  sub->nodes.push_back(n);
  return sub;
}

}  // namespace

TEST(dead_nodes_and_constants_go) {
  Builder b;
  const ValueId x = b.input();
  const ValueId unused = b.ramp({4});
  const ValueId y = b.node("Relu", {x});
  b.node("Exp", {b.node("Abs", {y})});
  b.output(y);
  CHECK(eliminate_dead_nodes(b.g));
  CHECK_EQ(ops(b.g), "Relu");
  CHECK(!b.g.constants.contains(unused));
  CHECK(!eliminate_dead_nodes(b.g));
  CHECK(is_consistent(b.g));
}

TEST(dead_nodes_what_a_subgraph_reads_lives) {
  Builder b;
  const ValueId x = b.input(), cond = b.input(DType::kBool);
  const ValueId a = b.node("Abs", {x}), dead = b.node("Exp", {x});
  auto sub = branch_reading(a);
  const ValueId idle = sub->add_value("idle");
  sub->captures.push_back({dead, idle});  // captured, but read by nobody
  b.output(b.node("If", {cond}, {{"then_branch", sub}, {"else_branch", branch_reading(a)}}));
  CHECK(eliminate_dead_nodes(b.g));
  CHECK_EQ(ops(b.g), "Abs If");
  CHECK_EQ(sub->captures.size(), 1u);
  CHECK(is_consistent(b.g));
}

TEST(identity_in_the_middle_and_at_the_end) {
  Builder b;
  const ValueId x = b.input();
  const ValueId y = b.node("Identity", {b.node("Relu", {b.node("Identity", {x})})});
  b.output(y);
  CHECK(eliminate_identity(b.g));
  CHECK_EQ(ops(b.g), "Relu");
  CHECK_EQ(b.g.nodes[0].inputs[0], x);
  CHECK_EQ(b.g.nodes[0].outputs[0], y);  // the output keeps its value, and so its name
  CHECK_EQ(b.g.outputs[0], y);
  CHECK(is_consistent(b.g));
}

TEST(identity_that_must_stay) {
  Builder b;
  const ValueId x = b.input();
  b.output(b.node("Identity", {x}));            // an input as an output
  b.output(b.node("Identity", {b.ramp({2})}));  // a constant as an output
  const ValueId r = b.node("Relu", {x});
  b.output(r);
  b.output(b.node("Identity", {r}));  // one value under two outputs
  CHECK(!eliminate_identity(b.g));
  CHECK_EQ(ops(b.g), "Identity Identity Relu Identity");
}

TEST(identity_is_redirected_inside_subgraphs) {
  Builder b;
  const ValueId x = b.input(), cond = b.input(DType::kBool);
  const ValueId i = b.node("Identity", {x});
  const auto sub = branch_reading(i);
  b.output(b.node("If", {cond}, {{"then_branch", sub}}));
  CHECK(eliminate_identity(b.g));
  CHECK_EQ(ops(b.g), "If");
  CHECK_EQ(sub->captures[0].outer, x);
  CHECK(is_consistent(b.g));
}

TEST(dropout_goes_only_at_inference) {
  const auto left = [](const std::function<void(Builder&, ValueId)>& make) {
    Builder b;
    make(b, b.input());
    b.output(b.node("Neg", {b.g.nodes[0].outputs[0]}));
    eliminate_identity(b.g);
    CHECK(is_consistent(b.g));
    return ops(b.g);
  };
  CHECK_EQ(left([](Builder& b, ValueId x) { b.node("Dropout", {x}, {}, 10); }), "Neg");
  CHECK_EQ(left([](Builder& b, ValueId x) { b.node("Dropout", {x, b.number(0.5f)}, {}, 13); }), "Neg");
  CHECK_EQ(left([](Builder& b, ValueId x) { b.node("Dropout", {x}, {}, 13, 2); }), "Neg");
  CHECK_EQ(left([](Builder& b, ValueId x) { b.node("Dropout", {x}, {{"is_test", int64_t{1}}}, 6); }), "Neg");
  CHECK_EQ(left([](Builder& b, ValueId x) { b.node("Dropout", {x}, {}, 6); }), "Dropout Neg");
  CHECK_EQ(left([](Builder& b, ValueId x) {
             const ValueId no = b.constant<uint8_t>({}, {0});
             b.g.constants[no].dtype = DType::kBool;
             b.node("Dropout", {x, kNoValue, no}, {}, 13);
           }),
           "Neg");
  CHECK_EQ(left([](Builder& b, ValueId x) {
             const ValueId yes = b.constant<uint8_t>({}, {1});
             b.g.constants[yes].dtype = DType::kBool;
             b.node("Dropout", {x, kNoValue, yes}, {}, 13);
           }),
           "Dropout Neg");
  CHECK_EQ(left([](Builder& b, ValueId x) { b.node("Dropout", {x, kNoValue, b.input(DType::kBool)}, {}, 13); }),
           "Dropout Neg");
  Builder masked;
  masked.node("Dropout", {masked.input()}, {}, 10, 2);
  masked.output(masked.g.nodes[0].outputs[0]);
  masked.output(masked.g.nodes[0].outputs[1]);
  CHECK(!eliminate_identity(masked.g));
}

TEST(cast_to_the_same_type) {
  const auto left = [](std::optional<DType> type, int64_t to, bool through_relu) {
    Builder b;
    ValueId x = b.input(type);
    if (through_relu) x = b.node("Relu", {x});
    b.output(b.node("Neg", {b.node("Cast", {x}, {{"to", to}})}));
    eliminate_identity(b.g);
    return ops(b.g);
  };
  CHECK_EQ(left(DType::kF32, 1, false), "Neg");
  CHECK_EQ(left(DType::kF32, 1, true), "Relu Neg");
  CHECK_EQ(left(DType::kI64, 7, false), "Neg");
  CHECK_EQ(left(DType::kF64, 1, true), "Relu Cast Neg");
  CHECK_EQ(left(DType::kF32, 11, false), "Cast Neg");
  CHECK_EQ(left(std::nullopt, 1, true), "Relu Cast Neg");
  // An operator that changes the type hides it.
  Builder b;
  b.output(b.node("Cast", {b.node("Shape", {b.input()})}, {{"to", int64_t{1}}}));
  CHECK(!eliminate_identity(b.g));
}

TEST(constants_of_every_kind_are_lifted) {
  Builder b;
  const auto constant = [&](const char* name, Attribute value) {
    return b.node("Constant", {}, {{name, std::move(value)}});
  };
  const std::vector<float> v{1, 2};
  const ValueId t = constant("value", make_tensor<float>({2}, std::span<const float>(v)));
  const ValueId f = constant("value_float", 0.5f), i = constant("value_int", int64_t{-3});
  const ValueId fs = constant("value_floats", std::vector<float>{0.25f, 4}),
                is = constant("value_ints", std::vector<int64_t>{7, 8, 9});
  const ValueId s = constant("value_string", std::string("one")),
                ss = constant("value_strings", std::vector<std::string>{"a", "b"});
  for (const ValueId id : {t, f, i, fs, is, s, ss}) b.output(id);
  CHECK(lift_constants(b.g));
  CHECK(b.g.nodes.empty());
  CHECK_EQ(b.g.constant(t)->as<float>()[1], 2);
  CHECK_EQ(b.g.constant(f)->as<float>()[0], 0.5f);
  CHECK_EQ(b.g.constant(f)->shape.rank(), 0u);
  CHECK_EQ(b.g.constant(i)->as<int64_t>()[0], -3);
  CHECK_EQ(b.g.constant(fs)->shape.str(), "(2,)");
  CHECK_EQ(b.g.constant(fs)->as<float>()[0], 0.25f);
  CHECK_EQ(b.g.constant(is)->as<int64_t>()[2], 9);
  CHECK_EQ(b.g.constant(s)->as<std::string_view>()[0], "one");
  CHECK_EQ(b.g.constant(ss)->as<std::string_view>()[1], "b");
  CHECK(!lift_constants(b.g));

  Builder empty;
  empty.output(empty.node("Constant", {}));
  CHECK(!lift_constants(empty.g));
}

TEST(captured_constants_move_into_subgraphs) {
  Builder b;
  const ValueId cond = b.input(DType::kBool);
  const ValueId c = b.node("Constant", {}, {{"value_float", 3.0f}});
  const auto sub = branch_reading(c);
  b.output(b.node("If", {cond}, {{"then_branch", sub}}));
  CHECK(lift_constants(b.g));
  CHECK(sub->captures.empty());
  CHECK_EQ(sub->constants.size(), 1u);
  CHECK_EQ(sub->constants.begin()->second.as<float>()[0], 3);
  CHECK(sub->constants.begin()->second.data == b.g.constant(c)->data);  // shared
  CHECK(is_consistent(b.g));
}

namespace {

/// Doubles floats, whatever the operator; refuses "Opaque".
std::optional<std::vector<Tensor>> twice(const Node& node, std::span<const Tensor* const> inputs) {
  if (node.op_type == "Opaque") return std::nullopt;
  void* data = nullptr;
  Tensor t = make_tensor(DType::kF32, inputs[0]->shape, &data);
  for (int64_t i = 0; i < t.shape.elements(); ++i) static_cast<float*>(data)[i] = 2 * inputs[0]->as<float>()[i];
  return std::vector<Tensor>{t};
}

}  // namespace

TEST(fold_constants_follows_chains_and_stops_at_inputs) {
  Builder b;
  const ValueId x = b.input();
  const ValueId four = b.node("Double", {b.node("Double", {b.number(1)})});
  b.output(b.node("Add", {x, four}));
  CHECK(fold_constants(b.g, twice));
  CHECK_EQ(ops(b.g), "Add");
  CHECK_EQ(b.g.constant(four)->as<float>()[0], 4);
  CHECK(!fold_constants(b.g, twice));
  CHECK(is_consistent(b.g));
}

TEST(fold_constants_leaves_what_it_must) {
  Builder b;
  const ValueId c = b.number(1), cond = b.constant<float>({}, {1});
  b.output(b.node("Opaque", {c}));
  b.output(b.node("RandomNormalLike", {c}));
  b.output(b.node("RandomUniform", {}));
  b.output(b.node("If", {cond}, {{"then_branch", branch_reading(b.node("Abs", {b.input()}))}}));
  CHECK(!fold_constants(b.g, twice));

  Builder big;
  big.output(big.node("Double", {big.ramp({100})}));
  CHECK(!fold_constants(
      big.g,
      [](const Node&, std::span<const Tensor* const>) -> std::optional<std::vector<Tensor>> {
        void* data = nullptr;
        return std::vector<Tensor>{make_tensor(DType::kF32, {1000}, &data)};
      },
      1000));
  CHECK(fold_constants(big.g, twice, 100));  // larger than the bound, but no larger than what it replaces
}

TEST(fold_constants_works_in_subgraphs) {
  Builder b;
  const auto sub = branch_reading(b.node("Double", {b.number(3)}));
  b.output(b.node("If", {b.input(DType::kBool)}, {{"then_branch", sub}}));
  CHECK(fold_constants(b.g, twice));
  CHECK_EQ(ops(b.g), "If");
  CHECK_EQ(ops(*sub), "");
  CHECK_EQ(sub->constant(sub->outputs[0])->as<float>()[0], 12);
}
