// Runs that go from plan to plan, from many threads at once.
#include <atomic>
#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include "engine/graphs.h"
#include "test.h"

namespace inferkit::testing {
namespace {

/// One node on a captured value: x -> op(x).
std::shared_ptr<Graph> branch(const std::string& op, ValueId outer) {
  auto graph = std::make_shared<Graph>();
  const ValueId in = graph->add_value("captured"), out = graph->add_value("result");
  graph->captures = {{outer, in}};
  graph->nodes = {make_node(op, {in}, {out})};
  graph->outputs = {out};
  return graph;
}

ValueId add_port(Graph& g, const std::string& name, DType dtype, const Shape& shape) {
  const ValueId id = g.add_value(name);
  g.values[static_cast<size_t>(id)].dtype = dtype;
  g.values[static_cast<size_t>(id)].shape = shape;
  return id;
}

/// y = c ? -s : |s| with s = x + x.
ModelFile if_model() {
  ModelFile file;
  Graph& g = file.graph;
  const ValueId x = add_port(g, "x", DType::kF32, {Shape::kFree, 3}), c = add_port(g, "c", DType::kBool, {});
  const ValueId s = g.add_value("s"), y = add_port(g, "y", DType::kF32, {Shape::kFree, 3});
  Node select = make_node("If", {c}, {y});
  select.attributes["then_branch"] = branch("Neg", s);
  select.attributes["else_branch"] = branch("Abs", s);
  g.nodes = {make_node("Add", {x, x}, {s}), select};
  g.inputs = {x, c};
  g.outputs = {y};
  file.opsets[""] = 17;
  return file;
}

/// y = x doubled n times.
ModelFile loop_model() {
  ModelFile file;
  Graph& g = file.graph;
  const ValueId n = add_port(g, "n", DType::kI64, {}), x = add_port(g, "x", DType::kF32, {Shape::kFree});
  const ValueId y = add_port(g, "y", DType::kF32, {Shape::kFree});
  auto body = std::make_shared<Graph>();
  const ValueId i = add_port(*body, "i", DType::kI64, {}), go = add_port(*body, "go", DType::kBool, {});
  const ValueId v = add_port(*body, "v", DType::kF32, {Shape::kFree});
  const ValueId still = body->add_value("still"), twice = body->add_value("twice");
  body->inputs = {i, go, v};
  body->nodes = {make_node("Identity", {go}, {still}), make_node("Add", {v, v}, {twice})};
  body->outputs = {still, twice};
  Node loop = make_node("Loop", {n, kNoValue, x}, {y});
  loop.attributes["body"] = body;
  g.nodes = {loop};
  g.inputs = {n, x};
  g.outputs = {y};
  file.opsets[""] = 17;
  return file;
}

TEST(a_condition_selects_at_every_run) {
  Model model(if_model(), {}, "");
  const float x[] = {1, -2, 3};
  for (const bool c : {true, false, true}) {
    VectorSink sink;
    const TensorView inputs[] = {{DType::kF32, {1, 3}, x}, {DType::kBool, {}, &c}};
    CHECK(model.run(inputs, sink).ok());
    for (int i = 0; i < 3; ++i) CHECK(sink.floats(0)[i] == (c ? -2 * x[i] : std::abs(2 * x[i])));
  }
}

TEST(a_loop_goes_round_as_often_as_it_is_told) {
  Model model(loop_model(), {}, "");
  const float x[] = {1, 2.5f};
  for (const int64_t n : {0, 1, 10}) {
    VectorSink sink;
    const TensorView inputs[] = {{DType::kI64, {}, &n}, {DType::kF32, {2}, x}};
    CHECK(model.run(inputs, sink).ok());
    for (int i = 0; i < 2; ++i) CHECK(sink.floats(0)[i] == std::ldexp(x[i], static_cast<int>(n)));
  }
}

TEST(a_model_says_whether_values_decide_how_long_it_runs) {
  CHECK(Model(loop_model(), {}, "").values_decide());
  CHECK(Model(if_model(), {}, "").values_decide());
  CHECK(!Model(small_model(), {}, "").values_decide());
}

TEST(threads_share_the_plans_of_all_stages) {
  ModelOptions options;
  options.max_plans = 3;  // fewer than are in use: plans go while others run on them
  Model branches(if_model(), options, ""), loops(loop_model(), options, "");
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int k = 0; k < 60; ++k) {
        const int64_t rows = 1 + (k + t) % 3;
        const std::vector<float> x(static_cast<size_t>(rows) * 3, static_cast<float>(k - 30));
        const bool c = (k + t) % 2 == 0;
        VectorSink sink;
        const TensorView inputs[] = {{DType::kF32, {rows, 3}, x.data()}, {DType::kBool, {}, &c}};
        wrong += !(branches.run(inputs, sink).ok());
        wrong += !(sink.floats(0)[rows * 3 - 1] == (c ? -2 * x[0] : std::abs(2 * x[0])));
        const int64_t n = k % 4;
        VectorSink doubled;
        const TensorView others[] = {{DType::kI64, {}, &n}, {DType::kF32, {rows}, x.data()}};
        wrong += !(loops.run(others, doubled).ok());
        wrong += !(doubled.floats(0)[0] == std::ldexp(x[0], static_cast<int>(n)));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(branches.memory().plans.plans <= 3);
}

/// y = unique(class of each row of x), z = all of them, one after the other: the labels are constants of the first
/// plan, the second only passes them on.
ModelFile label_model() {
  ModelFile file;
  Graph& g = file.graph;
  const ValueId x = add_port(g, "x", DType::kF32, {Shape::kFree, 2});
  const ValueId y = add_port(g, "y", DType::kString, {Shape::kFree}),
                z = add_port(g, "z", DType::kString, {Shape::kFree});
  const ValueId label = g.add_value("label");
  Node classify = make_node("LinearClassifier", {x}, {label});
  classify.domain = "ai.onnx.ml";
  classify.version = 1;
  classify.attributes["coefficients"] = std::vector<float>{1, 0, 0, 1};
  classify.attributes["intercepts"] = std::vector<float>{0, 0};
  classify.attributes["classlabels_strings"] = std::vector<std::string>{"the first of the classes", "the second"};
  Node concat = make_node("Concat", {y, label}, {z});
  concat.attributes["axis"] = int64_t{0};
  g.nodes = {classify, make_node("Unique", {label}, {y}), concat};
  g.inputs = {x};
  g.outputs = {y, z};
  file.opsets[""] = 17;
  return file;
}

TEST(strings_outlive_the_plans_whose_constants_they_show) {
  ModelOptions options;
  options.max_plans = 1;  // each of four threads throws out what the others run on
  Model model(label_model(), options, "");
  CHECK(model.has_text());
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int k = 0; k < 60; ++k) {
        const int64_t rows = 2 + (k + t) % 5;
        std::vector<float> x(static_cast<size_t>(rows) * 2, 0.0f);
        for (size_t r = 0; r < static_cast<size_t>(rows); ++r) x[2 * r + r % 2] = 1;
        VectorSink sink;
        const TensorView inputs[] = {{DType::kF32, {rows, 2}, x.data()}};
        if (!model.run(inputs, sink).ok()) {
          ++wrong;
          continue;
        }
        wrong += sink.string(0, 0) != "the first of the classes" || sink.string(0, 1) != "the second";
        for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
          wrong += sink.string(1, 2 + r) != (r % 2 == 0 ? "the first of the classes" : "the second");
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

}  // namespace
}  // namespace inferkit::testing
