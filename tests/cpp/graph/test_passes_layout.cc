// Transposes of channels-last models, and the additions that become biases once these are gone.
#include "graph/passes/passes.h"
#include "graph_builder.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

using Perm = std::vector<int64_t>;
const Perm kFirst = {0, 3, 1, 2}, kLast = {0, 2, 3, 1};  // channels

ValueId turned(Builder& b, ValueId x, const Perm& perm) { return b.node("Transpose", {x}, {{"perm", perm}}); }
ValueId conv(Builder& b, ValueId x) { return b.node("Conv", {x, b.ramp({4, 4, 1, 1})}); }
/// As exporters write a convolution of an image whose channels come last.
ValueId conv_last(Builder& b, ValueId x) { return turned(b, conv(b, turned(b, x, kFirst)), kLast); }

bool sink(Builder& b) {
  const bool changed = sink_transposes(b.g);
  eliminate_identity(b.g);
  eliminate_dead_nodes(b.g);
  CHECK(is_consistent(b.g));
  return changed;
}

}  // namespace

TEST(transposes_between_convolutions_meet_and_are_gone) {
  Builder b;
  const ValueId bias = b.ramp({4});
  ValueId x = conv_last(b, b.input());
  x = b.node("Relu", {b.node("Add", {x, bias})});
  x = b.node("Clip", {b.node("Mul", {b.number(2), x}), b.number(0), b.number(6)});
  b.output(conv_last(b, x));
  CHECK(sink(b));
  CHECK_EQ(ops(b.g), "Transpose Conv Add Relu Mul Clip Conv Transpose");
  const Node& add = b.g.nodes[2];
  CHECK(b.g.constant(add.inputs[1])->shape == (Shape{1, 4, 1, 1}));
  CHECK(b.g.constant(bias) == nullptr || b.g.constant(bias)->shape == Shape{4});
  CHECK(!sink(b));
}

TEST(transposes_of_different_ranks_stay_two) {
  // Nothing that runs, but a file may hold it: the second has an axis that the first one has not.
  for (const auto& [first, second] : {std::pair(kLast, Perm{0, 2, 3, 4, 1}), std::pair(Perm{0, 2, 3, 4, 1}, kLast)}) {
    Builder b;
    b.output(b.node("Add", {turned(b, turned(b, b.input(), first), second), b.ramp({5})}));
    sink_transposes(b.g);
    CHECK(is_consistent(b.g));
    CHECK_EQ(ops(b.g), "Transpose Transpose Add");
    CHECK(attr_of<Perm>(b.g.nodes[0], "perm") == first && attr_of<Perm>(b.g.nodes[1], "perm") == second);
  }
}

TEST(a_skip_connection_joins_what_both_have_transposed) {
  Builder b;
  const ValueId x = b.node("Relu", {conv_last(b, b.input())});
  const ValueId pooled = turned(b, b.node("MaxPool", {turned(b, x, kFirst)}), kLast);
  const ValueId up = turned(b, b.node("ConvTranspose", {turned(b, pooled, kFirst), b.ramp({4, 4, 2, 2})}), kLast);
  const ValueId joined = b.node("Concat", {up, x}, {{"axis", int64_t{-1}}});
  b.output(b.node("Softmax", {joined}, {{"axis", int64_t{3}}}));
  CHECK(sink(b));
  CHECK_EQ(ops(b.g), "Transpose Conv Relu MaxPool ConvTranspose Concat Softmax Transpose");
  CHECK_EQ(attr_of<int64_t>(b.g.nodes[5], "axis"), 1);
  CHECK_EQ(attr_of<int64_t>(b.g.nodes[6], "axis"), 1);
}

TEST(reductions_over_the_image_need_no_transpose) {
  Builder b;
  const ValueId x = conv_last(b, conv_last(b, b.input()));
  b.output(b.node("ReduceMean", {x}, {{"axes", Perm{1, 2}}, {"keepdims", int64_t{0}}}));
  b.output(b.node("ReduceMax", {x}, {{"axes", Perm{-1}}, {"keepdims", int64_t{1}}}));
  CHECK(sink(b));
  CHECK_EQ(ops(b.g), "Transpose Conv Conv ReduceMean ReduceMax Transpose");
  CHECK((attr_of<Perm>(b.g.nodes[3], "axes") == Perm{2, 3}));
  CHECK((attr_of<Perm>(b.g.nodes[4], "axes") == Perm{1}));
}

TEST(transposes_stay_where_others_read_them) {
  Builder b;
  const ValueId x = conv_last(b, conv_last(b, b.input()));
  b.output(b.node("Reshape", {x, b.constant<int64_t>({2}, {1, -1})}));
  b.output(x);
  CHECK(sink(b));
  CHECK_EQ(ops(b.g), "Transpose Conv Conv Transpose Reshape");
  // What keeps some of the dimensions out of order, or mixes them.
  for (const Perm& axes : {Perm{1}, Perm{2}}) {
    Builder c;
    c.output(c.node("ReduceMean", {conv_last(c, conv_last(c, c.input()))}, {{"axes", axes}, {"keepdims", int64_t{0}}}));
    CHECK(sink(c));
    CHECK_EQ(ops(c.g), "Transpose Conv Conv Transpose ReduceMean");
  }
}

TEST(constants_of_several_dimensions_stop_a_transpose) {
  Builder b;
  ValueId x = conv_last(b, conv_last(b, b.input()));
  x = b.node("Add", {x, b.ramp({5, 4})});
  b.output(turned(b, x, kFirst));
  CHECK(sink(b));
  CHECK_EQ(ops(b.g), "Transpose Conv Conv Transpose Add Transpose");
}

TEST(transposes_that_do_not_meet_stay_where_they_are) {
  const auto unchanged = [](const Perm& first, const Perm& second) {
    Builder b;
    b.output(turned(b, b.node("Relu", {turned(b, b.input(), first)}), second));
    const size_t values = b.g.values.size();
    const std::string before = ops(b.g);
    CHECK(!sink_transposes(b.g));
    CHECK_EQ(ops(b.g), before);
    CHECK_EQ(b.g.values.size(), values);
    CHECK(is_consistent(b.g));
  };
  unchanged(kLast, kLast);
  unchanged({0, 2, 1, 3}, {0, 2, 1, 3});  // an attention's heads: patterns of their own
  unchanged({1, 0}, {1, 0});
}

TEST(transposes_that_undo_each_other_are_gone_at_the_output_and_in_volumes) {
  Builder b;
  const ValueId x = b.input();
  b.output(turned(b, turned(b, x, kLast), kFirst));
  const ValueId volume = turned(b, b.input(), {0, 2, 3, 4, 1});
  b.output(turned(b, b.node("Tanh", {volume}), {0, 4, 1, 2, 3}));
  CHECK(sink(b));
  CHECK_EQ(ops(b.g), "Tanh Identity");
}

TEST(what_is_added_to_each_channel_becomes_a_bias) {
  const auto after = [](const std::string& op, const Shape& weights, const Shape& added, Attributes attributes = {}) {
    Builder b;
    const ValueId y = b.node(op, {b.input(), b.ramp(weights)}, std::move(attributes));
    b.output(b.node("Add", {b.ramp(added), y}));
    fold_bias(b.g);
    eliminate_dead_nodes(b.g);
    CHECK(is_consistent(b.g));
    if (b.g.nodes.size() == 1) {
      const Tensor& bias = *b.g.constant(b.g.nodes[0].inputs.at(2));
      CHECK(bias.shape == Shape{added.elements()});
      CHECK_EQ(bias.as<float>()[bias.shape[0] - 1], 0.5f + 0.25f * static_cast<float>(bias.shape[0] - 1));
    }
    return ops(b.g);
  };
  CHECK_EQ(after("Conv", {4, 3, 1, 1}, {4, 1, 1}), "Conv");
  CHECK_EQ(after("Conv", {4, 3, 1, 1}, {1, 4, 1, 1}), "Conv");
  CHECK_EQ(after("Conv", {4, 3, 5}, {4, 1}), "Conv");
  CHECK_EQ(after("ConvTranspose", {3, 4, 2, 2}, {4, 1, 1}), "ConvTranspose");
  CHECK_EQ(after("ConvTranspose", {6, 4, 2, 2}, {8, 1, 1}, {{"group", int64_t{2}}}), "ConvTranspose");
  CHECK_EQ(after("Conv", {4, 3, 1, 1}, {1, 1, 4}), "Conv Add");
  CHECK_EQ(after("Conv", {4, 3, 1, 1}, {1, 4, 1}), "Conv Add");
  CHECK_EQ(after("Conv", {4, 3, 1, 1}, {4}), "Conv Add");
  CHECK_EQ(after("Conv", {4, 3, 1, 1}, {1, 1, 1}), "Conv Add");
  CHECK_EQ(after("Conv", {4, 3, 1, 1}, {2, 4, 1, 1}), "Conv Add");
}

TEST(a_convolution_with_a_bias_or_other_readers_keeps_its_addition) {
  Builder b;
  const ValueId w = b.ramp({4, 3, 1, 1}), c = b.ramp({4, 1, 1});
  b.output(b.node("Add", {b.node("Conv", {b.input(), w, b.ramp({4})}), c}));
  const ValueId y = b.node("Conv", {b.input(), w});
  b.output(b.node("Add", {y, c}));
  b.output(y);
  CHECK(!fold_bias(b.g));
}
