// Passes that fuse: what they make of each pattern, and what they must leave alone.
#include <cmath>
#include <random>

#include "graph/passes/fuse_tokens.h"
#include "graph/passes/passes.h"
#include "graph_builder.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

const float kSqrt2 = 1.41421354f;

Node only(const Graph& g) {
  CHECK(is_consistent(g));
  CHECK_EQ(g.nodes.size(), 1u);
  return g.nodes.at(0);
}

std::string ops_after(Builder& b, bool (*pass)(Graph&)) {
  pass(b.g);
  eliminate_dead_nodes(b.g);
  CHECK(is_consistent(b.g));
  return ops(b.g);
}

}  // namespace

TEST(linear_from_matmul) {
  Builder b;
  const ValueId x = b.input(), w = b.ramp({3, 2});
  b.output(b.node("MatMul", {x, w}));
  CHECK(fuse_linear(b.g));
  const Node n = only(b.g);
  CHECK_EQ(ops(b.g), "Linear*");
  CHECK((n.inputs == std::vector<ValueId>{x, w}));
  CHECK_EQ(n.outputs[0], b.g.outputs[0]);
  CHECK_EQ(attr_of<int64_t>(n, "transB"), 0);
  CHECK(!fuse_linear(b.g));
}

TEST(a_transposed_constant_is_read_as_it_lies) {
  const auto after = [](const Shape& shape, Attributes transpose, const std::string& op, Attributes attributes) {
    Builder b;
    const ValueId w = b.ramp(shape), x = b.input();
    b.output(b.node(op, {x, b.node("Transpose", {w}, std::move(transpose))}, std::move(attributes)));
    read_transposed(b.g);
    CHECK(is_consistent(b.g));
    const Node& last = b.g.nodes.back();
    if (b.g.nodes.size() == 1) CHECK((last.inputs == std::vector<ValueId>{x, w}));
    const std::string flag = last.attributes.contains("transB") ? cat(" ", attr_of<int64_t>(last, "transB")) : "";
    return cat(ops(b.g), flag);
  };
  const Attributes swapped{{"perm", std::vector<int64_t>{1, 0}}}, same{{"perm", std::vector<int64_t>{0, 1}}};
  CHECK_EQ(after({2, 3}, swapped, "MatMul", {}), "Linear* 1");
  CHECK_EQ(after({2, 3}, {}, "MatMul", {}), "Linear* 1");  // reversed axes are the default
  CHECK_EQ(after({2, 3}, same, "MatMul", {}), "Transpose MatMul");
  CHECK_EQ(after({4, 2, 3}, {}, "MatMul", {}), "Transpose MatMul");
  CHECK_EQ(after({2, 3}, swapped, "Gemm", {}), "Gemm 1");
  CHECK_EQ(after({2, 3}, swapped, "Gemm", {{"transB", int64_t{1}}}), "Gemm 0");
  CHECK_EQ(after({2, 3}, same, "Gemm", {}), "Transpose Gemm");
}

TEST(a_transposed_constant_that_others_read_stays_for_them) {
  Builder b;
  const ValueId w = b.ramp({3, 3}), t = b.node("Transpose", {w});
  b.output(b.node("MatMul", {b.input(), t}));
  b.output(t);
  CHECK(read_transposed(b.g));
  CHECK(is_consistent(b.g));
  CHECK_EQ(ops(b.g), "Transpose Linear*");
}

TEST(linear_takes_a_bias_on_either_side) {
  for (const bool left : {false, true}) {
    Builder b;
    const ValueId x = b.input(), w = b.ramp({3, 2}), bias = b.ramp({2});
    const ValueId y = b.node("MatMul", {x, w});
    b.output(left ? b.node("Add", {bias, y}) : b.node("Add", {y, bias}));
    CHECK(fuse_linear(b.g));
    const Node n = only(b.g);
    CHECK((n.inputs == std::vector<ValueId>{x, w, bias}));
    CHECK_EQ(n.outputs[0], b.g.outputs[0]);
  }
  Builder b;  // a scalar is repeated
  b.output(b.node("Add", {b.node("MatMul", {b.input(), b.ramp({3, 2})}), b.number(0.75f)}));
  CHECK(fuse_linear(b.g));
  const Tensor& bias = *b.g.constant(only(b.g).inputs.at(2));
  CHECK_EQ(bias.shape.str(), "(2,)");
  CHECK_EQ(bias.as<float>()[1], 0.75f);
}

TEST(linear_leaves_biases_that_are_none) {
  const auto after = [](const Shape& bias, bool used_twice, bool is_output, int version) {
    Builder b;
    const ValueId y = b.node("MatMul", {b.input(), b.ramp({3, 2})});
    if (is_output) b.output(y);
    b.output(b.node("Add", {y, b.ramp(bias)}, {}, version));
    if (used_twice) b.output(b.node("Neg", {y}));
    return ops_after(b, fuse_linear);
  };
  CHECK_EQ(after({2}, false, false, 17), "Linear*");
  CHECK_EQ(after({4, 2}, false, false, 17), "Linear* Add");
  CHECK_EQ(after({1, 2}, false, false, 17), "Linear* Add");  // x may be a vector: (1, 2) would add a dimension
  CHECK_EQ(after({2}, true, false, 17), "Linear* Add Neg");
  CHECK_EQ(after({2}, false, true, 17), "Linear* Add");
  CHECK_EQ(after({2}, false, false, 6), "Linear* Add");
  Builder b;  // y + y
  const ValueId y = b.node("MatMul", {b.input(), b.ramp({3, 2})});
  b.output(b.node("Add", {y, y}));
  CHECK_EQ(ops_after(b, fuse_linear), "Linear* Add");
}

TEST(linear_needs_constant_float32_matrices) {
  Builder b;
  const ValueId x = b.input();
  b.output(b.node("MatMul", {x, b.input()}));
  b.output(b.node("MatMul", {x, b.ramp({2, 3, 4})}));
  b.output(b.node("MatMul", {x, b.ramp({3})}));
  b.output(b.node("MatMul", {x, b.constant<double>({1, 1}, {1.0})}));
  b.output(b.node("MatMul", {b.ramp({2, 3}), x}));
  CHECK(!fuse_linear(b.g));
}

TEST(linear_from_gemm) {
  const auto after = [](const Shape& c, Attributes attributes) {
    Builder b;
    b.output(b.node("Gemm", {b.input(), b.ramp({5, 4}), b.ramp(c)}, std::move(attributes)));
    return ops_after(b, fuse_linear);
  };
  const Attributes t{{"transB", int64_t{1}}};
  for (const Shape& c : {Shape{5}, Shape{1, 5}, Shape{}, Shape{1}, Shape{1, 1}}) CHECK_EQ(after(c, t), "Linear*");
  for (const Shape& c : {Shape{3, 5}, Shape{3, 1}, Shape{4}}) CHECK_EQ(after(c, t), "Gemm");
  CHECK_EQ(after({4}, {}), "Linear*");
  CHECK_EQ(after({4}, {{"alpha", 2.0f}}), "Gemm");
  CHECK_EQ(after({4}, {{"beta", 0.5f}}), "Linear*");
  CHECK_EQ(after({4}, {{"transA", int64_t{1}}}), "Gemm");

  Builder b;
  const ValueId x = b.input(), w = b.ramp({5, 4}), c = b.ramp({1, 5});
  b.output(b.node("Gemm", {x, w, c}, t));
  CHECK(fuse_linear(b.g));
  const Node n = only(b.g);
  CHECK_EQ(attr_of<int64_t>(n, "transB"), 1);
  Builder half;
  const ValueId row = half.ramp({1, 5});
  half.output(half.node("Gemm", {half.input(), half.ramp({5, 4}), row}, {{"transB", int64_t{1}}, {"beta", 0.5f}}));
  CHECK(fuse_linear(half.g));
  const Tensor* const bias = half.g.constant(only(half.g).inputs[2]);
  for (size_t i = 0; i < 5; ++i) CHECK_EQ(bias->as<float>()[i], 0.5f * half.g.constant(row)->as<float>()[i]);
  CHECK_EQ(b.g.constant(n.inputs[2])->shape.str(), "(5,)");
  CHECK(b.g.constant(n.inputs[2])->data == b.g.constant(c)->data);  // the same memory, another shape
  Builder none;                                                     // without C, beta does not matter
  none.output(none.node("Gemm", {none.input(), none.ramp({5, 4})}, {{"beta", 0.0f}}));
  CHECK_EQ(ops_after(none, fuse_linear), "Linear*");
}

TEST(activation_moves_into_linear_and_conv) {
  struct Row {
    std::string op;
    Attributes attributes;
    int version;
    std::string domain, name;
    float alpha, beta;
  };
  const float inf = std::numeric_limits<float>::infinity(), most = std::numeric_limits<float>::max();
  const Row rows[] = {{"Relu", {}, 17, "", "Relu", 0, 0},
                      {"LeakyRelu", {}, 17, "", "LeakyRelu", 0.01f, 0},
                      {"LeakyRelu", {{"alpha", 0.3f}}, 17, "", "LeakyRelu", 0.3f, 0},
                      {"Elu", {}, 17, "", "Elu", 1, 0},
                      {"Sigmoid", {}, 17, "", "Sigmoid", 0, 0},
                      {"Tanh", {}, 17, "", "Tanh", 0, 0},
                      {"HardSwish", {}, 17, "", "HardSwish", 0, 0},
                      {"HardSigmoid", {}, 17, "", "HardSigmoid", 0.2f, 0.5f},
                      {"HardSigmoid", {{"alpha", 0.25f}, {"beta", 0.1f}}, 17, "", "HardSigmoid", 0.25f, 0.1f},
                      {"Gelu", {}, 20, "", "Gelu", 0, 0},
                      {"Gelu", {{"approximate", std::string("tanh")}}, 20, "", "GeluTanh", 0, 0},
                      {"Gelu", {}, 1, "inferkit", "Gelu", 0, 0},
                      {"Silu", {}, 1, "inferkit", "Silu", 0, 0},
                      {"Clip", {}, 17, "", "Clip", -inf, inf},
                      {"Clip", {{"min", 0.0f}, {"max", 6.0f}}, 6, "", "Clip", 0, 6},
                      {"Clip", {}, 6, "", "Clip", -most, most}};
  for (const Row& row : rows) {
    for (const bool conv : {false, true}) {
      Builder b;
      const ValueId x = b.input();
      const ValueId y = conv ? b.node("Conv", {x, b.ramp({4, 3, 3, 3})}, {{"group", int64_t{1}}})
                             : b.node("Linear", {x, b.ramp({3, 2})}, {{"transB", int64_t{0}}}, 1, 1, "inferkit");
      b.output(b.node(row.op, {y}, row.attributes, row.version, 1, row.domain));
      CHECK(fuse_activation(b.g));
      const Node n = only(b.g);
      CHECK_EQ(ops(b.g), conv ? "Conv*" : "Linear*");
      CHECK_EQ(attr_of<std::string>(n, "activation"), row.name);
      CHECK_EQ(attr_of<float>(n, "activation_alpha"), row.alpha);
      CHECK_EQ(attr_of<float>(n, "activation_beta"), row.beta);
      CHECK(n.attributes.contains(conv ? "group" : "transB"));
      CHECK_EQ(n.outputs[0], b.g.outputs[0]);
      CHECK(!fuse_activation(b.g));  // one activation only
    }
  }
}

TEST(activation_clip_by_inputs) {
  const auto after = [](std::vector<ValueId> (*bounds)(Builder&)) {
    Builder b;
    std::vector<ValueId> in{b.node("Conv", {b.input(), b.ramp({1, 1, 1, 1})})};
    for (const ValueId id : bounds(b)) in.push_back(id);
    b.output(b.node("Clip", in));
    fuse_activation(b.g);
    return b.g.nodes.back();
  };
  const Node both = after([](Builder& b) { return std::vector<ValueId>{b.number(-1), b.number(2)}; });
  CHECK_EQ(attr_of<float>(both, "activation_alpha"), -1);
  CHECK_EQ(attr_of<float>(both, "activation_beta"), 2);
  const Node upper = after([](Builder& b) { return std::vector<ValueId>{kNoValue, b.number(6)}; });
  CHECK_EQ(attr_of<float>(upper, "activation_alpha"), -std::numeric_limits<float>::infinity());
  CHECK_EQ(attr_of<float>(upper, "activation_beta"), 6);
  CHECK_EQ(after([](Builder& b) { return std::vector<ValueId>{b.input()}; }).op_type, "Clip");
}

TEST(activation_that_must_stay) {
  Builder b;
  const ValueId x = b.input(), w = b.ramp({4, 3, 3, 3});
  const ValueId shared = b.node("Conv", {x, w});
  b.output(b.node("Relu", {shared}));
  b.output(b.node("Tanh", {shared}));
  const ValueId is_output = b.node("Conv", {x, w});
  b.output(is_output);
  b.output(b.node("Relu", {is_output}));
  b.output(b.node("Relu", {b.node("Conv", {x, b.input()})}));                           // of unknown type
  b.output(b.node("Relu", {b.node("Conv", {x, b.constant<double>({1, 1, 1}, {1})})}));  // of another type
  b.output(b.node("Softplus", {b.node("Conv", {x, w})}));
  b.output(b.node("PRelu", {b.number(1), b.node("Conv", {x, w})}));  // not its first input
  b.output(b.node("Swish", {b.node("Conv", {x, w})}, {{"alpha", 2.0f}}, 24));
  CHECK(!fuse_activation(b.g));
}

namespace {

struct Norm {
  ValueId gamma, beta, mean, variance;
};
Norm norm_constants(Builder& b, int64_t channels) {
  return {b.ramp({channels}, 0.5f, 0.3f), b.ramp({channels}, -1, 0.2f), b.ramp({channels}, 0.1f, -0.4f),
          b.ramp({channels}, 0.05f, 0.6f)};
}
double scale_of(const Graph& g, const Norm& n, int64_t c, double eps) {
  return g.constant(n.gamma)->as<float>()[c] / std::sqrt(g.constant(n.variance)->as<float>()[c] + eps);
}
ValueId batch_norm(Builder& b, ValueId y, const Norm& n, float eps) {
  return b.node("BatchNormalization", {y, n.gamma, n.beta, n.mean, n.variance}, {{"epsilon", eps}});
}
bool close(double a, double b) { return std::abs(a - b) <= 1e-7 * std::abs(b) + 1e-12; }

/// Folds BN into `op` and checks weights and bias against the formula; `channel(i)` is the channel of weight element i.
void check_folding(const std::string& op, const Shape& w_shape, int64_t channels, Attributes attributes, bool bias,
                   int64_t (*channel)(int64_t i)) {
  Builder b;
  const float eps = 1e-3f;
  const ValueId x = b.input(), w = b.ramp(w_shape, -2, 0.37f), c = bias ? b.ramp({channels}, 3, -0.7f) : kNoValue;
  std::vector<ValueId> in{x, w};
  if (bias) in.push_back(c);
  const Norm n = norm_constants(b, channels);
  b.output(batch_norm(b, b.node(op, in, std::move(attributes)), n, eps));
  CHECK(fold_batch_norm(b.g));
  const Node folded = only(b.g);
  CHECK_EQ(folded.op_type, op);
  CHECK_EQ(folded.outputs[0], b.g.outputs[0]);
  const Tensor &new_w = *b.g.constant(folded.inputs[1]), &new_b = *b.g.constant(folded.inputs[2]);
  CHECK(new_w.shape == w_shape);
  for (int64_t i = 0; i < w_shape.elements(); ++i)
    CHECK(close(new_w.as<float>()[i], b.g.constant(w)->as<float>()[i] * scale_of(b.g, n, channel(i), eps)));
  for (int64_t i = 0; i < channels; ++i) {
    const double old = bias ? b.g.constant(c)->as<float>()[i] : 0;
    const double mean = b.g.constant(n.mean)->as<float>()[i], beta = b.g.constant(n.beta)->as<float>()[i];
    CHECK(close(new_b.as<float>()[i], (old - mean) * scale_of(b.g, n, i, eps) + beta));
  }
}

}  // namespace

TEST(batch_norm_folds_into_weights) {
  for (const bool bias : {false, true}) {
    check_folding("Conv", {4, 3, 2, 2}, 4, {}, bias, [](int64_t i) { return i / 12; });
    check_folding("Conv", {6, 1, 3}, 6, {{"group", int64_t{6}}}, bias, [](int64_t i) { return i / 3; });
    check_folding("ConvTranspose", {3, 5, 2, 2}, 5, {}, bias, [](int64_t i) { return i / 4 % 5; });
    // Two groups: input channels 0 and 1 make output channels 0..2, input channels 2 and 3 make 3..5.
    check_folding("ConvTranspose", {4, 3, 2}, 6, {{"group", int64_t{2}}}, bias,
                  [](int64_t i) { return i / 6 / 2 * 3 + i / 2 % 3; });
    check_folding("Gemm", {3, 4}, 4, {}, bias, [](int64_t i) { return i % 4; });
    check_folding("Gemm", {4, 3}, 4, {{"transB", int64_t{1}}}, bias, [](int64_t i) { return i / 3; });
  }
}

TEST(batch_norm_that_must_stay) {
  const auto stays = [](const std::function<void(Builder&, ValueId, const Norm&)>& make) {
    Builder b;
    const ValueId y = b.node("Conv", {b.input(), b.ramp({4, 3, 2, 2})});
    make(b, y, norm_constants(b, 4));
    return !fold_batch_norm(b.g);
  };
  const auto bn = [](Builder& b, ValueId y, const Norm& n, Attributes a = {}, int version = 17, size_t outputs = 1) {
    b.output(b.node("BatchNormalization", {y, n.gamma, n.beta, n.mean, n.variance}, std::move(a), version, outputs));
  };
  CHECK(!stays([&](Builder& b, ValueId y, const Norm& n) { bn(b, y, n); }));
  CHECK(!stays([&](Builder& b, ValueId y, const Norm& n) { bn(b, y, n, {}, 9); }));
  CHECK(stays([&](Builder& b, ValueId y, const Norm& n) { bn(b, y, n, {{"training_mode", int64_t{1}}}); }));
  CHECK(stays([&](Builder& b, ValueId y, const Norm& n) { bn(b, y, n, {}, 9, 5); }));
  CHECK(stays([&](Builder& b, ValueId y, const Norm& n) { bn(b, y, n, {}, 6); }));
  CHECK(stays([&](Builder& b, ValueId y, const Norm& n) { bn(b, y, n, {{"spatial", int64_t{0}}}, 7); }));
  CHECK(stays([&](Builder& b, ValueId y, const Norm& n) { bn(b, y, n), b.output(y); }));
  CHECK(stays([&](Builder& b, ValueId y, const Norm& n) { bn(b, y, {n.gamma, n.beta, n.mean, b.input()}); }));
  CHECK(stays([&](Builder& b, ValueId y, const Norm& n) { bn(b, y, {n.gamma, n.beta, n.mean, b.ramp({3})}); }));
  CHECK(stays([&](Builder& b, ValueId y, const Norm& n) { bn(b, y, {n.gamma, n.beta, n.mean, b.ramp({4}, -9)}); }));
  CHECK(stays([&](Builder& b, ValueId y, const Norm& n) {  // folding would overflow
    bn(b, y, {b.ramp({4}, 3e38f, 0), n.beta, n.mean, b.ramp({4}, 1e-8f, 0)}, {{"epsilon", 0.0f}});
  }));
}

TEST(gelu_in_every_order) {
  for (int form = 0; form < 6; ++form) {
    for (const bool divide : {false, true}) {
      Builder b;
      const ValueId x = b.input();
      const ValueId z = divide ? b.node("Div", {x, b.number(kSqrt2)}) : b.node("Mul", {b.number(0.70710677f), x});
      const ValueId e = b.node("Erf", {z});
      const ValueId s = form % 2 ? b.node("Add", {e, b.number(1)}) : b.node("Add", {b.number(1), e});
      const ValueId half = b.number(0.5f);
      switch (form) {
        case 0:
          b.output(b.node("Mul", {b.node("Mul", {x, s}), half}));
          break;
        case 1:
          b.output(b.node("Mul", {half, b.node("Mul", {s, x})}));
          break;
        case 2:
          b.output(b.node("Mul", {b.node("Mul", {x, half}), s}));
          break;
        case 3:
          b.output(b.node("Mul", {s, b.node("Mul", {half, x})}));
          break;
        case 4:
          b.output(b.node("Mul", {b.node("Mul", {s, half}), x}));
          break;
        default:
          b.output(b.node("Mul", {x, b.node("Mul", {half, s})}));
          break;
      }
      CHECK(fuse_gelu(b.g));
      eliminate_dead_nodes(b.g);
      const Node n = only(b.g);
      CHECK_EQ(ops(b.g), "Gelu*");
      CHECK_EQ(n.inputs[0], x);
      CHECK_EQ(n.outputs[0], b.g.outputs[0]);
    }
  }
}

TEST(gelu_look_alikes_stay) {
  const auto after = [](float root, float one, float half, bool other_x, bool sum_is_output) {
    Builder b;
    const ValueId x = b.input();
    const ValueId s = b.node("Add", {b.node("Erf", {b.node("Div", {x, b.number(root)})}), b.number(one)});
    if (sum_is_output) b.output(s);
    b.output(b.node("Mul", {b.node("Mul", {other_x ? b.input() : x, s}), b.number(half)}));
    return ops_after(b, fuse_gelu);
  };
  CHECK_EQ(after(kSqrt2, 1, 0.5f, false, false), "Gelu*");
  const std::string all = "Div Erf Add Mul Mul";
  CHECK_EQ(after(1.414f, 1, 0.5f, false, false), all);
  CHECK_EQ(after(kSqrt2, 1.5f, 0.5f, false, false), all);
  CHECK_EQ(after(kSqrt2, 1, 0.25f, false, false), all);
  CHECK_EQ(after(kSqrt2, 1, 0.5f, true, false), all);
  CHECK_EQ(after(kSqrt2, 1, 0.5f, false, true), all);
}

TEST(silu_needs_float32) {
  const auto after = [](std::optional<DType> dtype, bool swap, bool other) {
    Builder b;
    const ValueId x = b.node("Abs", {b.input(dtype)});
    const ValueId s = b.node("Sigmoid", {x}), y = other ? b.input() : x;
    b.output(swap ? b.node("Mul", {s, y}) : b.node("Mul", {y, s}));
    return ops_after(b, fuse_silu);
  };
  CHECK_EQ(after(DType::kF32, false, false), "Abs Silu*");
  CHECK_EQ(after(DType::kF32, true, false), "Abs Silu*");
  CHECK_EQ(after(DType::kF64, false, false), "Abs Sigmoid Mul");
  CHECK_EQ(after(std::nullopt, false, false), "Abs Sigmoid Mul");
  CHECK_EQ(after(DType::kF32, false, true), "Abs Sigmoid Mul");
}

namespace {

struct LayerNormForm {
  bool axes_as_input = false, power = true, two_subs = false, bias = true, scale = true, epsilon_first = false;
  int64_t axis = -1, keepdims = 1;
  float exponent = 2;
  Shape scale_shape{8}, bias_shape{8};
};

std::string layer_norm_after(const LayerNormForm& f, Node* out = nullptr) {
  Builder b;
  const ValueId x = b.input();
  const auto mean = [&](ValueId v) {
    Attributes a{{"keepdims", f.keepdims}};
    if (f.axes_as_input) return b.node("ReduceMean", {v, b.constant<int64_t>({1}, {f.axis})}, a, 18);
    a["axes"] = std::vector<int64_t>{f.axis};
    return b.node("ReduceMean", {v}, a, 13);
  };
  const ValueId m = mean(x);
  const ValueId d = b.node("Sub", {x, m}), d2 = f.two_subs ? b.node("Sub", {x, m}) : d;
  const ValueId v = mean(f.power ? b.node("Pow", {d, b.number(f.exponent)}) : b.node("Mul", {d, d}));
  const ValueId eps = b.constant<float>({}, {1e-12f});
  const ValueId sum = f.epsilon_first ? b.node("Add", {eps, v}) : b.node("Add", {v, eps});
  ValueId y = b.node("Div", {d2, b.node("Sqrt", {sum})});
  if (f.scale) y = b.node("Mul", {y, b.ramp(f.scale_shape)});
  if (f.bias) y = b.node("Add", {b.ramp(f.bias_shape), y});
  b.output(y);
  const std::string result = ops_after(b, fuse_layer_norm);
  if (out) *out = b.g.nodes.back();
  return result;
}

}  // namespace

TEST(layer_norm_in_the_forms_exporters_write) {
  Node n;
  CHECK_EQ(layer_norm_after({}, &n), "LayerNorm*");
  CHECK_EQ(n.inputs.size(), 3u);
  CHECK_EQ(n.inputs[0], 0);
  CHECK_EQ(attr_of<int64_t>(n, "axis"), -1);
  CHECK_EQ(attr_of<float>(n, "epsilon"), 1e-12f);
  CHECK_EQ(layer_norm_after({.axes_as_input = true}), "LayerNorm*");
  CHECK_EQ(layer_norm_after({.power = false}), "LayerNorm*");
  CHECK_EQ(layer_norm_after({.two_subs = true}), "LayerNorm*");
  CHECK_EQ(layer_norm_after({.epsilon_first = true}), "LayerNorm*");
  CHECK_EQ(layer_norm_after({.bias = false}, &n), "LayerNorm*");
  CHECK_EQ(n.inputs.size(), 2u);
  CHECK_EQ(layer_norm_after({.bias_shape = {1}}), "LayerNorm* Add");
  CHECK_EQ(layer_norm_after({.bias = false, .scale = false}, &n), "LayerNorm*");
  CHECK_EQ(n.inputs.size(), 1u);
  CHECK_EQ(attr_of<float>(n, "epsilon"), 1e-12f);
  CHECK_EQ(layer_norm_after({.scale = false}), "LayerNorm* Add");
  CHECK_EQ(layer_norm_after({.scale_shape = {1}}), "LayerNorm* Mul Add");
  CHECK_EQ(layer_norm_after({.scale_shape = {2, 8}}), "LayerNorm* Mul Add");
}

TEST(layer_norm_look_alikes_stay) {
  const auto stays = [](const LayerNormForm& f) { return layer_norm_after(f).find('*') == std::string::npos; };
  CHECK(stays({.axis = 1}));
  CHECK(stays({.keepdims = 0}));
  CHECK(stays({.exponent = 3}));
  CHECK(stays({.bias = false, .scale = false, .axis = 1}));
  CHECK(stays({.scale = false, .exponent = 3}));
}

TEST(run_passes_ends_with_the_fewest_nodes) {
  Builder b;
  const ValueId x = b.input();
  const Norm n = norm_constants(b, 4);
  const ValueId conv = b.node("Conv", {b.node("Identity", {x}), b.ramp({4, 3, 3, 3})});
  const ValueId y = batch_norm(b, conv, n, 1e-5f);
  const ValueId silu = b.node("Mul", {y, b.node("Sigmoid", {y})});
  const ValueId flat = b.node("Flatten", {silu});
  const ValueId h = b.node("Add", {b.node("MatMul", {flat, b.ramp({16, 8})}), b.ramp({8})});
  const ValueId s = b.node("Add", {b.node("Erf", {b.node("Div", {h, b.number(kSqrt2)})}), b.number(1)});
  const ValueId gelu = b.node("Mul", {b.node("Mul", {h, s}), b.number(0.5f)});
  const ValueId out = b.node("Dropout", {gelu}, {}, 13, 2);
  b.output(out);
  run_passes(b.g);
  CHECK(is_consistent(b.g));
  CHECK_EQ(ops(b.g), "Conv* Flatten Linear*");
  CHECK_EQ(attr_of<std::string>(b.g.nodes[0], "activation"), "Silu");
  CHECK_EQ(attr_of<std::string>(b.g.nodes[2], "activation"), "Gelu");
  CHECK_EQ(b.g.nodes[2].outputs[0], b.g.outputs[0]);
  CHECK_EQ(b.g.constants.size(), 4u);
}

TEST(run_passes_keeps_random_graphs_whole) {
  std::mt19937_64 rng(11);
  const char* const unary[] = {"Identity", "Relu", "Sigmoid", "Erf", "Dropout", "Sqrt", "Neg", "Cast", "Tanh"};
  const char* const binary[] = {"Add", "Mul", "Sub", "Div"};
  for (int round = 0; round < 300; ++round) {
    Builder b;
    std::vector<ValueId> values{b.input(), b.input()};
    const auto pick = [&] { return values[rng() % values.size()]; };
    for (int i = 0; i < 30; ++i) {
      switch (rng() % 6) {
        case 0:
          values.push_back(b.node("MatMul", {pick(), b.ramp({4, 4})}));
          break;
        case 1:
          values.push_back(b.node("Conv", {pick(), b.ramp({4, 4, 1})}));
          break;
        case 2:
          values.push_back(b.node(binary[rng() % 4], {pick(), pick()}));
          break;
        case 3:
          values.push_back(b.node(binary[rng() % 4], {pick(), rng() % 2 ? b.ramp({4}) : b.number(0.5f)}));
          break;
        default: {
          Attributes a;
          const std::string op = unary[rng() % 9];
          if (op == "Cast") a["to"] = int64_t{1};
          values.push_back(b.node(op, {pick()}, a));
        }
      }
    }
    for (size_t i = 0; i < 3; ++i) {
      const ValueId out = pick();
      if (std::find(b.g.outputs.begin(), b.g.outputs.end(), out) == b.g.outputs.end()) b.output(out);
    }
    const auto outputs = b.g.outputs;
    const size_t before = b.g.nodes.size();
    run_passes(b.g);
    CHECK(is_consistent(b.g));
    CHECK(b.g.nodes.size() <= before);
    CHECK(b.g.outputs == outputs);
    const std::string once = ops(b.g);
    run_passes(b.g);
    CHECK_EQ(ops(b.g), once);
  }
}

namespace {

struct Tokens {
  Builder b;
  Attributes cut = {{"tokenexp", std::string("a+")}, {"pad_value", std::string("#")}, {"mark", int64_t{0}}};
  Attributes count = {{"pool_strings", std::vector<std::string>{"a", "aa"}}, {"max_gram_length", int64_t{2}}};
  bool flat = true;

  std::string fused(std::optional<Shape> shape) {
    const ValueId x = b.input(DType::kString, std::move(shape));
    ValueId t = b.node("Tokenizer", {x}, cut, 1, 1, "com.microsoft");
    if (flat) t = b.node("Flatten", {t});
    b.output(b.node("TfIdfVectorizer", {t}, count, 9));
    fuse_tokens(b.g);
    CHECK(is_consistent(b.g));
    return ops(b.g);
  }
};

}  // namespace

TEST(tokens_that_are_only_counted) {
  const std::string before = "Tokenizer Flatten TfIdfVectorizer";
  Tokens t;
  CHECK_EQ(t.fused(Shape{Shape::kFree}), "TokenCounts*");
  CHECK_EQ(attr_of<std::string>(t.b.g.nodes[0], "tokenexp"), "a+");
  CHECK_EQ(attr_of<int64_t>(t.b.g.nodes[0], "max_gram_length"), 2);
  CHECK_EQ(Tokens{}.fused(Shape{Shape::kFree, 1}), "TokenCounts*");
  // Several texts a row, or nobody knows how many: n-grams may reach from one to the next.
  CHECK_EQ(Tokens{}.fused(Shape{Shape::kFree, 3}), before);
  CHECK_EQ(Tokens{}.fused(std::nullopt), before);
  Tokens single;
  single.count["max_gram_length"] = int64_t{1};
  CHECK_EQ(single.fused(Shape{Shape::kFree, 3}), "TokenCounts*");
  Tokens straight;
  straight.flat = false;
  CHECK_EQ(straight.fused(Shape{Shape::kFree}), "TokenCounts*");
  Tokens counted;
  counted.cut["pad_value"] = std::string("aa");
  CHECK_EQ(counted.fused(Shape{Shape::kFree}), before);
  Tokens marked;
  marked.cut["mark"] = int64_t{1};
  CHECK_EQ(marked.fused(Shape{Shape::kFree}), before);
}

TEST(tokens_that_somebody_reads) {
  Builder b;
  const ValueId x = b.input(DType::kString, Shape{Shape::kFree});
  const ValueId t = b.node("Tokenizer", {x}, Tokens{}.cut, 1, 1, "com.microsoft");
  b.output(b.node("TfIdfVectorizer", {t}, Tokens{}.count, 9));
  b.output(t);
  CHECK(!fuse_tokens(b.g));
}
