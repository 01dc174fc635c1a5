#include <limits>

#include "engine/graphs.h"
#include "engine/model/input_sense.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// A graph of float32 values by name.
struct Sketch {
  Graph graph;

  ValueId value(const std::string& name) {
    for (size_t i = 0; i < graph.values.size(); ++i) {
      if (graph.values[i].name == name) return static_cast<ValueId>(i);
    }
    return graph.add_value(name);
  }
  Sketch& input(const std::string& name, const Shape& shape) {
    const ValueId id = value(name);
    graph.values[static_cast<size_t>(id)].dtype = DType::kF32;
    graph.values[static_cast<size_t>(id)].shape = shape;
    graph.inputs.push_back(id);
    return *this;
  }
  Sketch& constant(const std::string& name, const Shape& shape, std::vector<float> values) {
    graph.constants.emplace(value(name), make_tensor<float>(shape, std::span<const float>(values)));
    return *this;
  }
  Sketch& node(const std::string& op, const std::vector<std::string>& inputs, const std::vector<std::string>& outputs,
               std::map<std::string, Attribute, std::less<>> attributes = {}, const std::string& domain = "") {
    std::vector<ValueId> in, out;
    for (const std::string& name : inputs) in.push_back(name.empty() ? kNoValue : value(name));
    for (const std::string& name : outputs) out.push_back(value(name));
    graph.nodes.push_back(make_node(op, in, out));
    graph.nodes.back().attributes = std::move(attributes);
    graph.nodes.back().domain = domain;
    return *this;
  }
  Sketch& output(const std::string& name) {
    graph.outputs.push_back(value(name));
    return *this;
  }
  InputSense sense(size_t i = 0) { return input_senses(graph).at(i); }
};

Sketch& trees(Sketch& of, const std::string& x, const std::string& y, bool tracks = true) {
  return of.node("TreeEnsembleRegressor", {x}, {y},
                 {{"nodes_missing_value_tracks_true", std::vector<int64_t>{0, tracks ? 1 : 0}}}, "ai.onnx.ml");
}

}  // namespace

TEST(input_sense_nan_is_missing_to_trees_that_track_it) {
  Sketch tracking, ignoring;
  trees(tracking.input("x", {-1, 3}), "x", "y").output("y");
  trees(ignoring.input("x", {-1, 3}), "x", "y", false).output("y");
  CHECK(tracking.sense().non_finite == NonFinite::kNan);
  CHECK(ignoring.sense() == InputSense{});
}

TEST(input_sense_follows_values_that_are_moved_or_scaled) {
  Sketch moved;
  moved.input("a", {-1, 1}).input("b", {-1, 2}).node("Concat", {"a", "b"}, {"x"}, {{"axis", int64_t{1}}});
  moved.node("Cast", {"x"}, {"d"}, {{"to", int64_t{11}}}).node("Scaler", {"d"}, {"s"}, {}, "ai.onnx.ml");
  trees(moved, "s", "y").output("y");
  CHECK(moved.sense(0).non_finite == NonFinite::kNan);
  CHECK(moved.sense(1).non_finite == NonFinite::kNan);
  Sketch rounded;  // an integer has no NaN
  rounded.input("x", {-1, 3}).node("Cast", {"x"}, {"i"}, {{"to", int64_t{7}}});
  trees(rounded, "i", "y").output("y");
  CHECK(rounded.sense() == InputSense{});
}

TEST(input_sense_needs_all_readers) {
  Sketch both;
  trees(both.input("x", {-1, 3}), "x", "y").node("Relu", {"x"}, {"z"}).output("y").output("z");
  CHECK(both.sense() == InputSense{});
  Sketch dead;  // what nobody reads does not count
  trees(dead.input("x", {-1, 3}), "x", "y").node("Relu", {"x"}, {"z"}).output("y");
  CHECK(dead.sense().non_finite == NonFinite::kNan);
  Sketch passed_on;
  trees(passed_on.input("x", {-1, 3}), "x", "y").output("y").output("x");
  CHECK(passed_on.sense() == InputSense{});
  Sketch measured;  // its shape alone
  trees(measured.input("x", {-1, 3}), "x", "y").node("Shape", {"x"}, {"n"}).output("y").output("n");
  CHECK(measured.sense().non_finite == NonFinite::kNan);
}

TEST(input_sense_imputers_and_questions) {
  Sketch imputed, replacing_zeros, asked;
  imputed.input("x", {-1, 1}).node("Imputer", {"x"}, {"y"}, {{"replaced_value_float", kNaN}}, "ai.onnx.ml").output("y");
  CHECK(imputed.sense().non_finite == NonFinite::kNan);
  replacing_zeros.input("x", {-1, 1}).node("Imputer", {"x"}, {"y"}, {{"replaced_value_float", 0.f}}, "ai.onnx.ml");
  replacing_zeros.output("y");
  CHECK(replacing_zeros.sense() == InputSense{});
  asked.input("x", {-1, 1}).node("IsNaN", {"x"}, {"n"}).constant("zero", {}, {0});
  asked.node("Where", {"n", "zero", "x"}, {"y"}).output("y");
  CHECK(asked.sense().non_finite == NonFinite::kNan);
  Sketch of_a_part;  // of which the rest is read otherwise
  of_a_part.input("x", {-1, 3})
      .constant("first", {}, {0})
      .node("Gather", {"x", "first"}, {"c"}, {{"axis", int64_t{1}}});
  of_a_part.node("IsNaN", {"c"}, {"n"}).node("Relu", {"x"}, {"y"}).output("n").output("y");
  CHECK(of_a_part.sense() == InputSense{});
}

TEST(input_sense_minus_infinity_masks_before_a_softmax) {
  Sketch masked;
  masked.input("x", {-1, 2}).input("m", {-1, 2}).constant("k", {}, {0.5f});
  masked.node("Mul", {"x", "k"}, {"scaled"}).node("Unsqueeze", {"m"}, {"mm"}).node("Add", {"scaled", "mm"}, {"a"});
  masked.node("Softmax", {"a"}, {"y"}).output("y");
  CHECK(masked.sense(1).non_finite == NonFinite::kMinusInfinity);
  Sketch bare;  // no mask
  bare.input("x", {-1, 2}).node("Softmax", {"x"}, {"y"}).output("y");
  CHECK(bare.sense() == InputSense{});
  Sketch logarithm;  // of a probability of 0 it is minus infinity, too
  logarithm.input("x", {-1, 2}).input("m", {-1, 2}).node("Add", {"x", "m"}, {"a"});
  logarithm.node("LogSoftmax", {"a"}, {"y"}).output("y");
  CHECK(logarithm.sense(1).non_finite == NonFinite::kMinusInfinity);
  Sketch summed, subtracted;
  summed.input("x", {-1, 2}).input("m", {-1, 2}).node("Sum", {"x", "m"}, {"a"}).node("Softmax", {"a"}, {"y"});
  summed.output("y");
  CHECK(summed.sense(1).non_finite == NonFinite::kMinusInfinity);
  subtracted.input("x", {-1, 2}).input("m", {-1, 2}).node("Sub", {"x", "m"}, {"a"}).node("Softmax", {"a"}, {"y"});
  subtracted.output("y");
  CHECK(subtracted.sense(0).non_finite == NonFinite::kMinusInfinity);
  CHECK(subtracted.sense(1).non_finite == NonFinite::kPlusInfinity);
  Sketch biased;
  biased.input("x", {-1, 2}).constant("b", {2}, {1, 2}).node("Add", {"x", "b"}, {"a"});
  biased.node("Softmax", {"a"}, {"y"}).output("y");
  CHECK(biased.sense() == InputSense{});
  Sketch flipped;
  flipped.input("x", {-1, 2}).input("m", {-1, 2}).constant("k", {}, {-1}).node("Mul", {"m", "k"}, {"minus"});
  flipped.node("Add", {"x", "minus"}, {"a"}).node("Softmax", {"a"}, {"y"}).output("y");
  CHECK(flipped.sense(1) == InputSense{});
  Sketch attention;
  attention.input("q", {-1, 2, 4}).input("m", {-1, 2}).node("Attention", {"q", "q", "q", "m"}, {"y"}).output("y");
  CHECK(attention.sense(1).non_finite == NonFinite::kMinusInfinity);
  CHECK(attention.sense(0) == InputSense{});
}

TEST(input_sense_infinity_that_is_asked_for) {
  Sketch both, minus, all;
  both.input("x", {-1, 2}).node("IsInf", {"x"}, {"i"}).node("Relu", {"x"}, {"y"}).output("i").output("y");
  CHECK(both.sense().non_finite == NonFinite::kInfinity);
  minus.input("x", {-1, 2}).node("IsInf", {"x"}, {"i"}, {{"detect_positive", int64_t{0}}}).output("i");
  CHECK(minus.sense().non_finite == NonFinite::kMinusInfinity);
  all.input("x", {-1, 2}).node("IsInf", {"x"}, {"i"}).node("IsNaN", {"x"}, {"n"}).output("i").output("n");
  CHECK(all.sense().non_finite == NonFinite::kAll);
}

TEST(input_sense_an_empty_past) {
  Sketch decoder;
  decoder.input("past", {-1, 2, -1, 4}).input("x", {-1, 2, 1, 4});
  decoder.node("Concat", {"past", "x"}, {"y"}, {{"axis", int64_t{-2}}}).node("Relu", {"y"}, {"z"}).output("z");
  CHECK_EQ(int{decoder.sense(0).empty_axes}, 0b0100);
  CHECK_EQ(int{decoder.sense(1).empty_axes}, 0);
  Sketch twice;  // nothing need be left
  twice.input("past", {-1, -1}).node("Concat", {"past", "past"}, {"y"}, {{"axis", int64_t{1}}}).output("y");
  CHECK_EQ(int{twice.sense(0).empty_axes}, 0);
  Sketch stacked;  // (2, batch, heads, past, size), as GPT-2 is exported
  stacked.input("past", {2, -1, 2, -1, 4}).input("x", {-1, 2, 1, 4}).constant("one", {}, {1});
  stacked.node("Gather", {"past", "one"}, {"k"}, {{"axis", int64_t{0}}});
  stacked.node("Concat", {"k", "x"}, {"y"}, {{"axis", int64_t{-2}}}).node("Relu", {"y"}, {"z"}).output("z");
  CHECK_EQ(int{stacked.sense(0).empty_axes}, 0b01000);
  Sketch transposed;
  transposed.input("past", {-1, -1, 4}).input("x", {4, -1, 1});
  transposed.node("Transpose", {"past"}, {"t"}, {{"perm", std::vector<int64_t>{2, 0, 1}}});
  transposed.node("Concat", {"t", "x"}, {"y"}, {{"axis", int64_t{2}}}).node("Relu", {"y"}, {"z"}).output("z");
  CHECK_EQ(int{transposed.sense(0).empty_axes}, 0b010);
  Sketch read_elsewhere;
  read_elsewhere.input("past", {-1, -1}).input("x", {-1, 1}).node("ReduceMax", {"past"}, {"m"});
  read_elsewhere.node("Concat", {"past", "x"}, {"y"}, {{"axis", int64_t{1}}}).output("y").output("m");
  CHECK_EQ(int{read_elsewhere.sense(0).empty_axes}, 0);
}

TEST(input_sense_which_of_a_concat_may_be_empty) {
  const auto axes = [](Sketch& sketch, std::vector<std::string> inputs) {
    sketch.node("Concat", inputs, {"y"}, {{"axis", int64_t{1}}}).node("Relu", {"y"}, {"z"}).output("z");
    std::vector<int> out;
    for (const InputSense& sense : input_senses(sketch.graph)) out.push_back(sense.empty_axes);
    return out;
  };
  Sketch last, first, both, fixed, constant, bytes, many;
  last.input("past", {-1, -1}).input("x", {-1, -1}).node("MatMul", {"x", "x"}, {"k"});
  CHECK(axes(last, {"k", "past"}) == (std::vector<int>{0b10, 0}));
  first.input("past", {-1, -1}).input("x", {-1, -1}).node("MatMul", {"x", "x"}, {"k"});
  CHECK(axes(first, {"past", "k"}) == (std::vector<int>{0b10, 0}));
  both.input("past", {-1, -1}).input("x", {-1, -1});  // the one that is put behind the other
  CHECK(axes(both, {"past", "x"}) == (std::vector<int>{0b10, 0}));
  fixed.input("x", {-1, 3}).input("past", {-1, -1});
  CHECK(axes(fixed, {"x", "past"}) == (std::vector<int>{0, 0b10}));
  constant.input("x", {1, -1}).constant("w", {1, 2}, {1, 2});
  CHECK(axes(constant, {"w", "x"}) == (std::vector<int>{0b10}));
  bytes.input("past", {-1, -1}).input("x", {-1, -1}).node("Relu", {"x"}, {"k"}).constant("s", {}, {0.5f});
  bytes.node("DequantizeLinear", {"past", "s"}, {"p"});
  CHECK(axes(bytes, {"p", "k"}) == (std::vector<int>{0b10, 0}));
  many.input("past", {-1, -1}).input("x", {-1, -1}).node("Relu", {"x"}, {"k"}).constant("s", {2}, {0.5f, 1});
  many.node("DequantizeLinear", {"past", "s"}, {"p"},
            {{"axis", int64_t{1}}});  // a scale for each, of which there are 2
  CHECK(axes(many, {"p", "k"}) == (std::vector<int>{0, 0}));
}

TEST(input_sense_looks_into_branches) {
  const auto with_branch = [](bool reads_it_otherwise) {
    Sketch branch;
    trees(branch, "captured", "r");
    if (reads_it_otherwise) branch.node("Relu", {"captured"}, {"z"}).output("z");
    branch.output("r");
    Sketch outer;
    outer.input("x", {-1, 3}).input("c", {});
    branch.graph.captures.push_back({outer.value("x"), branch.value("captured")});
    Sketch other;
    other.constant("k", {}, {1}).output("k");
    outer.node("If", {"c"}, reads_it_otherwise ? std::vector<std::string>{"y0", "y1"} : std::vector<std::string>{"y0"},
               {{"then_branch", std::make_shared<Graph>(branch.graph)},
                {"else_branch", std::make_shared<Graph>(other.graph)}});
    outer.output("y0");
    if (reads_it_otherwise) outer.output("y1");
    return outer.sense();
  };
  CHECK(with_branch(false).non_finite == NonFinite::kNan);
  CHECK(with_branch(true) == InputSense{});
}
