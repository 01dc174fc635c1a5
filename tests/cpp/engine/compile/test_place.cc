// Which way each node takes, and that every way that can run a float32 node gives the bits of the others.
#include <set>

#include "engine/compile/place.h"
#include "engine/one_node.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

using Attributes = std::map<std::string, Attribute, std::less<>>;

struct Known {
  std::string expected;  // the way that place takes
  Case node;
};

Attributes conv(std::vector<int64_t> pads, std::vector<int64_t> strides = {}, int64_t group = 1) {
  Attributes out{{"pads", std::move(pads)}, {"group", group}};
  if (!strides.empty()) out.emplace("strides", std::move(strides));
  return out;
}

Case reduce(std::string op, Shape x, std::vector<int64_t> axes, DType dtype = DType::kF32) {
  return {.op = std::move(op), .inputs = {std::move(x)}, .dtype = dtype, .attributes = {{"axes", std::move(axes)}}};
}

std::vector<Known> convolutions() {
  return {
      {"depthwise",
       {.op = "Conv", .inputs = {{1, 24, 20, 21}, {24, 1, 3, 3}}, .attributes = conv({1, 1, 1, 1}, {}, 24)}},
      {"depthwise", {.op = "Conv", .inputs = {{2, 6, 9, 9}, {12, 1, 1, 1}}, .attributes = conv({}, {}, 6)}},
      {"packed", {.op = "Conv", .inputs = {{1, 24, 16, 16}, {40, 24, 1, 1}}}},
      {"packed", {.op = "Conv", .inputs = {{1, 3, 9, 9, 9}, {16, 3, 2, 2, 2}}}},
      {"windows", {.op = "Conv", .inputs = {{1, 16, 40, 40}, {32, 16, 3, 3}}, .attributes = conv({1, 1, 1, 1})}},
      {"windows", {.op = "Conv", .inputs = {{2, 8, 60}, {24, 8, 5}}, .attributes = conv({2, 2})}},
      {"packed",
       {.op = "Conv",
        .inputs = {{1, 8, 14, 14}, {64, 8, 3, 3}},
        .attributes = {{"strides", std::vector<int64_t>{3, 3}}}}},
      {"rows",
       {.op = "Conv",
        .inputs = {{2, 1, 1000}, {160, 1, 475}},
        .attributes = {{"strides", std::vector<int64_t>{441}}},
        .constant_last = true}},
      {"blocks",
       {.op = "Conv",
        .inputs = {{2, 40, 14, 14}, {64, 40, 3, 3}},
        .attributes = conv({1, 1, 1, 1}),
        .constant_last = true}},
      {"blocks",
       {.op = "Conv",
        .inputs = {{1, 64, 28, 14}, {96, 64, 3, 3}},
        .attributes = conv({1, 1, 1, 1}, {2, 2}),
        .constant_last = true}},
      {"rows", {.op = "Conv", .inputs = {{9, 24, 3, 5}, {50, 24, 3, 5}}, .constant_last = true}},
      {"packed", {.op = "Conv", .inputs = {{1, 3, 8, 8}, {4, 3, 3, 3}}, .dtype = DType::kF64}},
      {"channels",
       {.op = "Conv",
        .inputs = {{2, 35, 7, 9}, {35, 1, 9, 5}},
        .attributes = conv({4, 2, 3, 2}, {}, 35),
        .constant_last = true}},
      {"channels",
       {.op = "Conv",
        .inputs = {{1, 16, 14, 13}, {16, 1, 31, 29}},
        .attributes = conv({15, 14, 15, 14}, {}, 16),
        .constant_last = true}},
      {"plain",
       {.op = "Conv", .inputs = {{1, 3, 8, 8}, {3, 1, 3, 3}}, .dtype = DType::kF64, .attributes = conv({}, {}, 3)}},
  };
}

std::vector<Known> products() {
  return {
      {"ahead", {.op = "MatMul", .inputs = {{3, 70}, {70, 32}}, .constant_last = true}},
      {"ahead", {.op = "MatMul", .inputs = {{4, 3, 70}, {4, 70, 9}}, .constant_last = true}},
      {"in_place", {.op = "MatMul", .inputs = {{2, 3, 70}, {70, 32}}}},
      {"packed", {.op = "MatMul", .inputs = {{5, 2, 70}, {5, 70, 9}}}},
      {"ahead", {.op = "MatMul", .inputs = {{3, 70}, {70, 32}}, .dtype = DType::kF64, .constant_last = true}},
      {"in_place", {.op = "MatMul", .inputs = {{3, 70}, {70, 32}}, .dtype = DType::kF64}},
      {"packed", {.op = "MatMul", .inputs = {{5, 2, 70}, {5, 70, 9}}, .dtype = DType::kF64}},
      {"plain", {.op = "MatMul", .inputs = {{3, 70}, {70, 32}}, .dtype = DType::kI32}},
      {"ahead",
       {.op = "Gemm", .inputs = {{9, 300}, {50, 300}}, .attributes = {{"transB", int64_t{1}}}, .constant_last = true}},
      {"packed", {.op = "Gemm", .inputs = {{9, 300}, {300, 50}}, .attributes = {{"alpha", 0.5f}}}},
      {"ahead",
       {.op = "Gemm",
        .inputs = {{9, 300}, {50, 300}},
        .dtype = DType::kF64,
        .attributes = {{"transB", int64_t{1}}},
        .constant_last = true}},
      {"packed", {.op = "Gemm", .inputs = {{9, 30}, {30, 5}}, .dtype = DType::kF64}},
      {"plain", {.op = "Gemm", .inputs = {{9, 30}, {30, 5}}, .dtype = DType::kI64}},
  };
}

std::vector<Known> reductions() {
  return {
      {"alias", reduce("ReduceMean", {5, 1, 7}, {1})},
      {"rows", reduce("ReduceL2", {5, 1, 7}, {1})},
      {"rows", reduce("ReduceMean", {5, 700}, {1})},
      {"rows", reduce("ReduceMax", {5, 3, 40}, {1, 2})},
      {"columns", reduce("ReduceSumSquare", {5, 700, 9}, {1})},
      {"columns", reduce("ReduceMin", {70, 33}, {0})},
      {"columns", reduce("ReduceMean", {5, 70, 7}, {1})},
      {"columns", reduce("ReduceMean", {1, 70, 2}, {1})},
      {"generic", reduce("ReduceLogSumExp", {5, 70, 9}, {1})},  // no kernel for columns
      {"generic", reduce("ReduceMax", {3, 4, 5, 6}, {0, 2})},
      {"generic", reduce("ReduceMean", {5, 700}, {1}, DType::kF64)},
  };
}

std::vector<Known> others() {
  const auto bytes = [](Shape x, Shape w, int64_t group) {
    return Case{
        .op = "ConvInteger", .inputs = {x, w}, .dtype = DType::kU8, .attributes = conv({}, {}, group), .version = 10};
  };
  const auto signed_bytes = [](Shape x, Shape w, std::vector<int64_t> pads, int64_t group,
                               std::vector<int64_t> dilations = {}) {
    Case c{.op = "ConvInteger",
           .inputs = {x, w},
           .dtype = DType::kI8,
           .attributes = conv(std::move(pads), {}, group),
           .version = 10,
           .constant_last = true};
    if (!dilations.empty()) c.attributes.emplace("dilations", std::move(dilations));
    return c;
  };
  const auto pool = [](std::string op, Shape x, std::vector<int64_t> kernel) {
    return Case{.op = std::move(op), .inputs = {std::move(x)}, .attributes = {{"kernel_shape", std::move(kernel)}}};
  };
  const auto volume = [&](std::string op, Shape x, std::vector<int64_t> strides, std::vector<int64_t> pads,
                          int64_t ceil_mode, int64_t include_pad) {
    Case c = pool(std::move(op), std::move(x), {3, 2, 3});
    c.attributes.insert({{"strides", std::move(strides)}, {"pads", std::move(pads)}, {"ceil_mode", ceil_mode}});
    if (c.op == "AveragePool") c.attributes.insert({"count_include_pad", include_pad});
    return c;
  };
  return {
      {"planes", volume("MaxPool", {2, 2, 9, 8, 37}, {2, 1, 2}, {1, 1, 2, 2, 0, 1}, 1, 0)},
      {"planes", volume("AveragePool", {2, 2, 9, 8, 37}, {2, 1, 2}, {1, 1, 2, 2, 0, 1}, 1, 0)},
      {"planes", volume("AveragePool", {1, 3, 8, 5, 20}, {1, 2, 1}, {0, 1, 1, 0, 1, 1}, 1, 1)},
      {"planes", volume("AveragePool", {1, 3, 8, 5, 20}, {1, 2, 1}, {1, 1, 1, 1, 1, 1}, 1, 1)},
      {"gemm", bytes({1, 8, 9, 9}, {3, 8, 3, 3}, 1)},
      {"windows", signed_bytes({1, 8, 9, 9}, {3, 8, 3, 3}, {1, 1, 1, 1}, 1)},
      {"windows", signed_bytes({2, 15, 7, 37}, {27, 5, 3, 2}, {2, 0, 1, 1}, 3)},
      {"windows", signed_bytes({1, 6, 11, 40}, {13, 6, 3, 3}, {0, 2, 4, 1}, 1, {3, 2})},
      {"windows", signed_bytes({2, 6, 40}, {5, 6, 3}, {2, 0}, 1)},
      {"gemm", signed_bytes({1, 64, 7, 7}, {64, 64, 3, 3}, {1, 1, 1, 1}, 1)},  // half of its lanes would be idle
      {"taps", bytes({1, 8, 9, 9}, {2, 8, 3, 3}, 1)},
      {"planes", bytes({1, 8, 9, 9}, {8, 1, 3, 3}, 8)},
      {"planes", pool("MaxPool", {1, 3, 9, 9}, {3, 3})},
      {"planes", pool("AveragePool", {1, 3, 19}, {3})},
      {"planes", pool("AveragePool", {1, 2, 150, 90}, {140, 70})},
      {"planes", pool("MaxPool", {1, 3, 5, 5, 5}, {2, 2, 2})},
      {"planes", pool("AveragePool", {1, 2, 9, 8, 7}, {3, 2, 3})},
      {"generic", pool("AveragePool", {1, 1, 9, 9, 9}, {6, 6, 2})},
      {"planes", pool("MaxPool", {1, 1, 9, 9, 9}, {6, 6, 2})},
      {"generic", pool("MaxPool", {1, 1, 2, 10'000}, {2, 2})},
  };
}

std::vector<Known> all_known() {
  std::vector<Known> out;
  for (auto&& some : {convolutions(), products(), reductions(), others()})
    out.insert(out.end(), some.begin(), some.end());
  return out;
}

const OpDef& def_of(const Node& node) { return *OpRegistry::instance().find(node.domain, node.op_type, node.version); }

/// The node with what place sees of it.
struct Seen {
  explicit Seen(const Case& from) : built(build(from)) {
    size_t input = 0;
    for (size_t i = 0; i < from.inputs.size(); ++i) {
      const ValueId id = built.graph.nodes[0].inputs[i];
      const Tensor* constant = built.graph.constant(id);
      facts.push_back(constant ? TensorFacts{constant->dtype, constant->shape, constant}
                               : TensorFacts{built.facts[input].dtype, built.facts[input].shape, nullptr});
      if (!constant) ++input;
    }
    for (const TensorFacts& f : facts) in.push_back(&f);
  }
  Choice choose(const LoweringWishes& wishes, std::vector<Considered>* considered = nullptr,
                DeviceKind device = DeviceKind::kCpu, Precision precision = Precision::kFloat32) {
    std::vector<TensorFacts> out(1);
    return choose_lowering(def_of(built.graph.nodes[0]), device, NodeContext(built.graph.nodes[0], in, out), wishes,
                           considered, precision);
  }

  Built built;
  std::vector<TensorFacts> facts;
  std::vector<const TensorFacts*> in;
};

std::string refusal(std::string_view wishes) {
  try {
    LoweringWishes::parse(wishes);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST(place_takes_ways_of_the_device_alone) {
  for (const Known& known : {convolutions().front(), reductions().front()}) {
    Seen seen(known.node);
    try {
      seen.choose({}, nullptr, DeviceKind::kNull);
      CHECK(false);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kUnsupportedOp);
      CHECK(contains(error.what(), "no lowering for the device 'null'"));
    }
  }
}

TEST(place_takes_the_expected_way) {
  std::set<std::string> taken;
  for (const Known& known : all_known()) {
    Seen seen(known.node);
    const Choice choice = seen.choose({});
    CHECK_EQ(std::string(choice.lowering->name), known.expected);
    CHECK(choice.why == Choice::Why::kCheapest);
    taken.insert(known.node.op + "=" + known.expected);
  }
  // Every way of these operators is taken by somebody.
  for (const char* op : {"Conv", "MatMul", "Gemm", "ConvInteger", "MaxPool"}) {
    for (const Lowering& way : OpRegistry::instance().find("", op, 17)->lowerings) {
      if (way.device != DeviceKind::kCpu || way.precision == Precision::kBf16) continue;
      if (!taken.contains(std::string(op) + "=" + std::string(way.name)))
        CHECK_EQ(std::string(way.name), std::string(op));
    }
  }
}

TEST(place_takes_bf16_where_the_model_does_and_a_way_is_there) {
  int in_bf16 = 0, others = 0;
  for (const Known& known : all_known()) {
    Seen seen(known.node);
    std::vector<Considered> ways;
    const Choice choice = seen.choose({}, &ways, DeviceKind::kCpu, Precision::kBf16);
    const bool can = std::ranges::any_of(
        ways, [](const Considered& way) { return way.lowering->precision == Precision::kBf16 && way.cost.possible(); });
    (can ? in_bf16 : others) += 1;
    CHECK((choice.lowering->precision == Precision::kBf16) == can);
    if (!can) CHECK_EQ(std::string(choice.lowering->name), known.expected);
    if (known.node.op == "MatMul" || known.node.op == "Gemm") CHECK_EQ(can, known.node.dtype == DType::kF32);
    // Costs, which know the batch, do not choose between precisions.
    for (const Considered& way : ways) {
      if (can && way.lowering->precision != Precision::kBf16)
        CHECK_EQ(std::string(way.cost.why_not()), std::string("it does not compute in bf16"));
    }
  }
  CHECK(in_bf16 > 5 && others > 5);
}

// Whatever CUDA can run in float32, it can run in a model that asks for halves, and says the same of what it cannot.
TEST(place_takes_tensor_cores_where_a_model_on_cuda_asks_for_halves) {
  int on_tensor_cores = 0, refused = 0;
  for (const Known& known : all_known()) {
    Seen seen(known.node);
    const auto chosen = [&](Precision precision, std::vector<Considered>* ways, std::string& why) -> const Lowering* {
      try {
        // The wish is for a way of the CPU.
        return seen.choose(LoweringWishes::parse("MatMul=packed,Conv=rows"), ways, DeviceKind::kCuda, precision)
            .lowering;
      } catch (const Error& error) {
        CHECK(error.code() == ErrorCode::kUnsupportedOp);
        why = error.what();
        return nullptr;
      }
    };
    std::string why;
    const Lowering* const in_float = chosen(Precision::kFloat32, nullptr, why);
    CHECK(!in_float || in_float->name == "cuda");
    for (const Precision precision : {Precision::kBf16, Precision::kFloat16}) {
      std::string why_here;
      std::vector<Considered> ways;
      const Lowering* const way = chosen(precision, &ways, why_here);
      CHECK((way == nullptr) == (in_float == nullptr));
      CHECK_EQ(why_here, why);
      refused += way == nullptr;
      if (!way) continue;
      const bool product = known.node.op == "MatMul" || known.node.op == "Gemm" || known.node.op == "Conv";
      if (!rounds_operands(way->precision)) {
        CHECK(way == in_float);
        CHECK(!product || known.node.op == "Conv");
        continue;
      }
      ++on_tensor_cores;
      CHECK(product && way->precision == precision);
      CHECK_EQ(std::string(way->name), std::string(precision == Precision::kBf16 ? "cuda_bf16" : "cuda_float16"));
      CHECK_EQ(ways.size(), size_t{2});
      CHECK_EQ(std::string(ways[0].cost.why_not()), cat("it does not compute in ", precision_name(precision)));
    }
  }
  CHECK(on_tensor_cores > 10 && refused > 2);
}

TEST(the_cpu_has_no_float16) {
  for (const Known& known : all_known()) {
    Seen seen(known.node);
    CHECK_EQ(std::string(seen.choose({}, nullptr, DeviceKind::kCpu, Precision::kFloat16).lowering->name),
             known.expected);
  }
}

TEST(ways_in_bf16_give_the_same_bits) {
  int forced = 0;
  for (const Known& known : all_known()) {
    Seen seen(known.node);
    PackedWeights cache;
    std::vector<Considered> ways;
    seen.choose({}, &ways, DeviceKind::kCpu, Precision::kBf16);
    const auto answer = [&](const LoweringWishes& wishes) {
      return run(seen.built,
                 compile(seen.built.graph, seen.built.facts, cache, {.precision = Precision::kBf16, .wishes = &wishes}),
                 {});
    };
    const LoweringWishes none;
    const auto expected = answer(none);
    for (const Considered& way : ways) {
      if (way.lowering->precision != Precision::kBf16 || !way.cost.possible()) continue;
      const std::string name(way.lowering->name);
      if (answer(LoweringWishes::parse(known.node.op + "=" + name)) != expected) CHECK_EQ(known.node.op, name);
      ++forced;
    }
  }
  CHECK(forced > 8);
}

TEST(place_says_what_the_others_would_cost_or_why_they_cannot) {
  Seen seen(convolutions()[2].node);
  std::vector<Considered> ways;
  const Choice choice = seen.choose({}, &ways);
  CHECK_EQ(ways.size(), size_t{7});
  CHECK_EQ(std::string(ways[0].cost.why_not()),
           std::string("not one channel a group, or a window that its kernel is not for"));
  CHECK(ways[3].lowering == choice.lowering);
  for (const Considered& way : ways) {
    if (way.cost.possible()) CHECK(way.cost.nanos() >= ways[1].cost.nanos());
  }
}

TEST(one_element_that_is_the_answer_has_one_way) {
  for (const auto& [op, way] :
       {std::pair{"ReduceSum", "alias"}, {"ReduceLogSumExp", "alias"}, {"ReduceL1", "generic"}}) {
    Seen seen({.op = op, .inputs = {{3, 1, 4}}, .attributes = {{"axes", std::vector<int64_t>{1}}}, .version = 11});
    std::vector<Considered> ways;
    const Choice choice = seen.choose(LoweringWishes::parse(std::string(op) + "=generic"), &ways);
    CHECK_EQ(std::string(choice.lowering->name), std::string(way));
    for (const Considered& other : ways) {
      if (std::string(way) == "alias") CHECK_EQ(other.cost.possible(), other.lowering == choice.lowering);
    }
  }
}

TEST(a_forced_way_is_taken_where_it_can_and_gives_the_same_bits_in_float32) {
  int forced = 0;
  for (const Known& known : all_known()) {
    Seen seen(known.node);
    PackedWeights cache;
    const auto plan_for = [&](const LoweringWishes& wishes) {
      return compile(seen.built.graph, seen.built.facts, cache, {.wishes = &wishes});
    };
    const LoweringWishes none;
    const auto expected = run(seen.built, plan_for(none), {});
    std::vector<Considered> ways;
    seen.choose({}, &ways);
    for (const Considered& way : ways) {
      const std::string name(way.lowering->name);
      const LoweringWishes wishes = LoweringWishes::parse(known.node.op + "=" + name);
      const Choice choice = seen.choose(wishes);
      CHECK_EQ(std::string(choice.lowering->name), way.cost.possible() ? name : known.expected);
      CHECK(choice.why == (way.cost.possible() ? Choice::Why::kForced : Choice::Why::kCannotForce));
      const auto answer = run(seen.built, plan_for(wishes), {});
      ++forced;
      if (answer != expected) CHECK_EQ(known.node.op + " " + known.expected, name);
    }
  }
  CHECK(forced > 60);
}

TEST(a_wish_for_what_is_not_there_names_what_is) {
  CHECK(contains(
      refusal("Conv=row"),
      "Conv has no lowering 'row'; use one of bf16, blocks, channels, depthwise, packed, plain, rows, windows"));
  const std::string unknown = refusal("Convolution=rows");
  CHECK(contains(unknown, "there is no operator 'Convolution'"));
  CHECK(contains(unknown, "Conv, ") && contains(unknown, "ReduceSum"));
  CHECK(contains(refusal("Conv"), "is not Operator=lowering"));
  CHECK(contains(refusal("Conv=rows,,"), "is not Operator=lowering"));
  CHECK(refusal("").empty());
  CHECK(refusal("Conv=rows,ReduceSum=generic,Relu=default").empty());
}

TEST(a_way_for_float32_and_float64_is_not_offered_to_other_types) {
  Seen seen({.op = "Gemm", .inputs = {{9, 30}, {30, 5}}, .dtype = DType::kI64});
  std::vector<Considered> ways;
  seen.choose({}, &ways);
  CHECK_EQ(std::string(ways[0].cost.why_not()), std::string("it is for float32 and float64"));
  CHECK_EQ(std::string(ways[1].cost.why_not()), std::string("it is for float32 and float64"));
}

TEST(a_way_for_float32_is_not_offered_to_other_types) {
  Seen seen(convolutions().back().node);
  std::vector<Considered> ways;
  seen.choose({}, &ways);
  for (const Considered& way : ways) {
    if (way.lowering->precision == Precision::kFloat32)
      CHECK_EQ(std::string(way.cost.why_not()), std::string("it is for float32"));
  }
}
