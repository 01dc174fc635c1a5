// Scratch follows the threads that a run may use; the answer follows the layer alone.
#include <cstring>
#include <random>

#include "engine/compile/compile.h"
#include "engine/graphs.h"
#include "platform/thread_pool.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

struct Case {
  std::string op;
  std::vector<Shape> inputs;
  DType dtype = DType::kF32;
  std::map<std::string, Attribute, std::less<>> attributes{};
  int version = 17;
  bool constant_last = false;  // the last input is a weight
};

/// Each takes scratch for each thread, by a lowering of its own.
std::vector<Case> cases() {
  const auto pads = [](int64_t n) { return Attribute(std::vector<int64_t>(4, n)); };
  return {
      {.op = "Conv", .inputs = {{1, 24, 40, 40}, {48, 24, 3, 3}}, .attributes = {{"pads", pads(1)}}},
      {.op = "Conv",
       .inputs = {{2, 16, 33, 33}, {24, 16, 3, 3}},
       .attributes = {{"strides", std::vector<int64_t>{2, 2}}}},
      {.op = "Conv", .inputs = {{8, 64, 7, 7}, {96, 64, 3, 3}}, .constant_last = true},
      {.op = "Conv",
       .inputs = {{2, 128, 40, 41}, {128, 1, 3, 3}},
       .attributes = {{"group", int64_t{128}}, {"pads", pads(1)}}},
      {.op = "ConvTranspose", .inputs = {{1, 32, 24, 24}, {32, 16, 4, 4}}, .constant_last = true},
      {.op = "ConvInteger", .inputs = {{1, 24, 40, 40}, {48, 24, 3, 3}}, .dtype = DType::kU8, .version = 10},
      {.op = "MatMul", .inputs = {{12, 64, 70}, {12, 70, 50}}},
      {.op = "Einsum",
       .inputs = {{12, 64, 70}, {12, 50, 70}},
       .attributes = {{"equation", std::string("bik,bjk->bij")}}},
      {.op = "Attention", .inputs = {{2, 8, 48, 32}, {2, 8, 48, 32}, {2, 8, 48, 32}}, .version = 23},
  };
}

struct Built {
  Graph graph;
  std::vector<Tensor> values;     // of all inputs
  std::vector<InputFacts> facts;  // of those that are no weights
};

Built build(const Case& from) {
  std::mt19937 random(7);
  Built out;
  std::vector<ValueId> ids;
  for (size_t i = 0; i < from.inputs.size(); ++i) {
    void* data = nullptr;
    out.values.push_back(make_tensor(from.dtype, from.inputs[i], &data));
    for (int64_t at = 0; at < from.inputs[i].elements(); ++at) {
      const auto draw = static_cast<int>(random() % 201) - 100;
      if (from.dtype == DType::kF32) static_cast<float*>(data)[at] = static_cast<float>(draw) / 64;
      if (from.dtype == DType::kU8) static_cast<uint8_t*>(data)[at] = static_cast<uint8_t>(draw + 100);
    }
    ids.push_back(out.graph.add_value("in"));
    if (from.constant_last && i + 1 == from.inputs.size()) {
      out.graph.constants.emplace(ids.back(), out.values.back());
    } else {
      out.graph.inputs.push_back(ids.back());
      out.facts.push_back({from.dtype, from.inputs[i]});
    }
  }
  out.graph.outputs = {out.graph.add_value("y")};
  Node node = make_node(from.op, ids, out.graph.outputs);
  node.version = from.version;
  node.attributes = from.attributes;
  out.graph.nodes.push_back(node);
  return out;
}

std::vector<std::byte> run(const Built& built, std::shared_ptr<const Plan> plan, const ExecContext& context) {
  std::vector<const void*> in;
  for (size_t i = 0; i < built.facts.size(); ++i) in.push_back(built.values[i].data);
  const Port& port = plan->outputs.at(0);
  std::vector<std::byte> out(TensorView{port.dtype, port.shape, nullptr}.bytes());
  void* pointers[] = {out.data()};
  Session(std::move(plan), *BufferPool::process_default()).run(in, pointers, context);
  return out;
}

}  // namespace

TEST(scratch_follows_the_threads_of_a_run_and_the_bits_do_not) {
  ThreadPool pool(4);
  for (const Case& one : cases()) {
    const Built built = build(one);
    PackedWeights cache;
    const auto plan_for = [&](int threads) { return compile(built.graph, built.facts, cache, {.threads = threads}); };
    const auto alone = plan_for(1), some = plan_for(4), many = plan_for(12);
    // For a few threads it may be less, as their blocks are smaller.
    if (alone->arena_bytes >= many->arena_bytes) {
      std::printf("%s: %zu bytes for one thread, %zu for 12\n", one.op.c_str(), alone->arena_bytes, many->arena_bytes);
      CHECK(false);
    }
    const auto answer = run(built, alone, {});
    CHECK(answer == run(built, alone, {&pool, 4}));  // more than it has room for: it takes fewer
    CHECK(answer == run(built, some, {}));
    CHECK(answer == run(built, some, {&pool, 4}));
    CHECK(answer == run(built, many, {&pool, 4}));
  }
}

TEST(a_plan_is_for_one_thread_unless_told) {
  const Built built = build(cases().front());
  PackedWeights cache;
  const size_t bytes = compile(built.graph, built.facts, cache)->arena_bytes;
  CHECK_EQ(bytes, compile(built.graph, built.facts, cache, {.threads = 1})->arena_bytes);
}
