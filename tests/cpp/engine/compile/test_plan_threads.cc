// Scratch follows the threads that a run may use; the answer follows the layer alone.
#include "engine/one_node.h"
#include "platform/thread_pool.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

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
      {.op = "Softmax",
       .inputs = {{16, 200, 70}},
       .dtype = DType::kF64,
       .attributes = {{"axis", int64_t{1}}},
       .version = 13},
      {.op = "AveragePool",
       .inputs = {{2, 16, 12, 24, 24}},
       .attributes = {{"kernel_shape", std::vector<int64_t>{3, 3, 3}}, {"count_include_pad", int64_t{1}}}},
      {.op = "LSTM",
       .inputs = {{20, 1, 64}, {2, 256, 64}, {2, 256, 64}},
       .attributes = {{"direction", std::string("bidirectional")}, {"hidden_size", int64_t{64}}},
       .version = 14},
      {.op = "Attention", .inputs = {{2, 8, 48, 32}, {2, 8, 48, 32}, {2, 8, 48, 32}}, .version = 23},
  };
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
