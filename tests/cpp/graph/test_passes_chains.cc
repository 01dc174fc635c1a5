// fuse_chains: what becomes one node, and where a chain must end.
#include <algorithm>
#include <limits>

#include "graph/passes/passes.h"
#include "graph_builder.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

/// As exporters spell HardSwish out.
ValueId hard_swish(Builder& b, ValueId x) {
  const ValueId bounded = b.node("Clip", {b.node("Add", {x, b.number(3)}), b.number(0), b.number(6)});
  return b.node("Div", {b.node("Mul", {x, bounded}), b.number(6)});
}

std::string after(Builder& b) {
  fuse_chains(b.g);
  CHECK(is_consistent(b.g));
  return ops(b.g);
}

}  // namespace

TEST(chain_of_numbers_becomes_one_node) {
  Builder b;
  const ValueId x = b.input();
  const ValueId scaled = b.node("Add", {b.node("Mul", {b.constant<float>({1}, {2}), x}), b.number(-1)});
  const ValueId y = hard_swish(b, scaled);
  b.output(y);
  CHECK_EQ(after(b), "Chain*");
  const Node& n = b.g.nodes.at(0);
  CHECK((n.inputs == std::vector<ValueId>{x}));
  CHECK_EQ(n.outputs.at(0), y);
  CHECK((attr_of<std::vector<std::string>>(n, "ops") ==
         std::vector<std::string>{"Mul", "Add", "Add", "Clip", "Mul", "Div"}));
  // x is 0, what operator i gives is i, a number -1.
  CHECK((attr_of<std::vector<int64_t>>(n, "reads") == std::vector<int64_t>{-1, 0, 1, -1, 2, -1, 3, -1, 2, 4, 5, -1}));
  const FloatList numbers = attr_of<FloatList>(n, "numbers");
  const std::vector<float> expected{2, 0, 0, -1, 0, 3, 0, 6, 0, 0, 0, 6};
  CHECK(std::ranges::equal(numbers.values(), expected));
  CHECK_EQ(attr_of<int64_t>(n, "rank"), 1);
  CHECK_EQ(n.stands_for.size(), 6u);
  CHECK(!fuse_chains(b.g));
}

TEST(chain_ends_where_a_value_is_read_outside) {
  Builder b;
  const ValueId x = b.input();
  const ValueId scaled = b.node("Add", {b.node("Mul", {x, b.number(2)}), b.number(1)});
  b.output(scaled);
  b.output(hard_swish(b, scaled));
  CHECK_EQ(after(b), "Chain* Chain*");

  Builder middle;
  const ValueId first = middle.node("Mul", {middle.input(), middle.number(2)});
  middle.output(first);
  middle.output(middle.node("Relu", {first}));
  CHECK_EQ(after(middle), "Mul Relu");
}

TEST(chain_leaves_alone_what_it_cannot_be_sure_of) {
  const auto with = [](auto&& second, std::optional<DType> dtype = DType::kF32) {
    Builder b;
    const ValueId x = b.input(dtype);
    b.output(second(b, b.node("Relu", {x})));
    return after(b);
  };
  const auto add = [](Builder& b, ValueId v) { return b.node("Add", {v, b.number(1)}); };
  CHECK_EQ(with(add), "Chain*");
  CHECK_EQ(with([](Builder& b, ValueId v) { return b.node("Add", {v, b.input()}); }), "Relu Add");
  CHECK_EQ(with([](Builder& b, ValueId v) { return b.node("Add", {v, b.ramp({4})}); }), "Relu Add");
  CHECK_EQ(with([](Builder& b, ValueId v) { return b.node("Add", {v, b.ramp({1, 1})}); }), "Relu Add");  // adds axes
  CHECK_EQ(with([](Builder& b, ValueId v) { return b.node("Exp", {v}); }), "Relu Exp");
  CHECK_EQ(with([](Builder& b, ValueId v) { return b.node("Clip", {v, b.number(0)}); }), "Relu Clip");
  CHECK_EQ(with([](Builder& b, ValueId v) { return b.node("Clip", {v, b.number(2), b.number(1)}); }), "Relu Clip");
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK_EQ(with([&](Builder& b, ValueId v) { return b.node("Clip", {v, b.number(nan), b.number(1)}); }), "Relu Clip");
  CHECK_EQ(with([](Builder& b, ValueId v) { return b.node("Tanh", {v}); }, std::nullopt), "Relu Tanh");
  CHECK_EQ(with([](Builder& b, ValueId v) { return b.node("Tanh", {v}); }, DType::kF64), "Relu Tanh");
}

TEST(a_long_chain_is_cut) {
  Builder b;
  ValueId v = b.input();
  for (int i = 0; i < 20; ++i) v = b.node("Add", {v, b.number(1)});
  b.output(v);
  CHECK_EQ(after(b), "Chain* Chain*");
}
