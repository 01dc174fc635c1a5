// Whole models on the tests' CUDA device, to the bit as on the CPU.
#include <algorithm>

#include "../engine/graphs.h"
#include "../engine/one_node.h"
#include "backend_on_host.h"
#include "models.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

using cuda_on_host::Figures;

/// Loads the file for both, and compares runs on inputs(batch, seed).
template <class Inputs>
void same_on_both(const std::string& path, std::initializer_list<int64_t> batches, Inputs inputs) {
  if (!comparable()) return;
  Figures figures;
  const Compared compared(figures);
  {
    const auto there = Model::load(path, on(compared.device()));
    const auto here = Model::load(path);
    if (!same_answers(*there, *here, path, batches, inputs, [&](uint64_t seed) { figures.seed = 1000 * seed; })) return;
    if (compared.emulated()) {
      CHECK(figures.launches > 0);
      CHECK_EQ(figures.captures, static_cast<int64_t>(batches.size()));  // a shape's second run is its graph alone
    }
  }
  nothing_is_in_use(compared.device());
  CHECK_EQ(figures.allocations, 0);
  CHECK_EQ(figures.pinned, 0);
}

TEST(an_mlp_has_the_bits_of_the_cpu) {
  same_on_both(data("graph/mlp.onnx"), {1, 3, 64},
               [](int64_t batch, uint32_t seed) { return std::vector<Input>{floats({batch, 4}, seed)}; });
}

TEST(the_digits_example_has_the_bits_of_the_cpu) {
  same_on_both(data("../../examples/digits.onnx"), {1, 9, 33},
               [](int64_t batch, uint32_t seed) { return std::vector<Input>{floats({batch, 64}, seed)}; });
}

TEST(an_encoder_has_the_bits_of_the_cpu) {
  same_on_both(data("graph/encoder.onnx"), {1, 2, 5},
               [](int64_t batch, uint32_t seed) { return sentences(batch, 6 + batch, seed); });
}

TEST(a_convolutional_model_has_the_bits_of_the_cpu) {
  same_on_both(data("graph/images.onnx"), {1, 2, 5},
               [](int64_t batch, uint32_t seed) { return std::vector<Input>{floats({batch, 3, 9, 8}, seed)}; });
}

TEST(a_right_side_that_follows_from_the_shapes_has_the_bits_of_the_cpu) {
  same_on_both(data("graph/columns.onnx"), {1, 9, 64},
               [](int64_t batch, uint32_t seed) { return std::vector<Input>{floats({batch, 40}, seed)}; });
}

TEST(a_sum_of_one_element_is_that_element_as_on_the_cpu) {
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  Built built = build({.op = "ReduceMean", .inputs = {{3, 1, 2}}, .attributes = {{"axes", std::vector<int64_t>{1}}}});
  constexpr float kValues[] = {-0.0f, 0.0f, 1e-40f, -1e-40f, 2.5f, -INFINITY};
  std::memcpy(const_cast<std::byte*>(built.values[0].data.place()), kValues, sizeof(kValues));
  for (Device* const at : std::initializer_list<Device*>{device.get(), &cpu_device()}) {
    PackedWeights cache;
    const auto y = run(built, compile(built.graph, built.facts, cache, {.device = at}), {});
    CHECK_EQ(y.size(), sizeof(kValues));
    CHECK(std::memcmp(y.data(), kValues, sizeof(kValues)) == 0);
  }
}

TEST(weights_are_uploaded_once_for_all_shapes) {
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  const auto model = Model::load(data("graph/mlp.onnx"), on(*device));
  answers(*model, {floats({2, 4}, 1)});
  const int64_t uploads = figures.uploads;
  CHECK(uploads > 0);
  answers(*model, {floats({3, 4}, 1)});
  answers(*model, {floats({20, 4}, 1)});
  CHECK_EQ(figures.uploads, uploads);
}

TEST(memory_of_the_device_that_runs_out_is_an_error_and_the_next_run_works) {
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  const auto model = Model::load(data("graph/mlp.onnx"), on(*device));
  const int64_t memory = figures.memory.exchange(64);
  try {
    answers(*model, {floats({2, 4}, 1)});
    CHECK(false);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kPoolExhausted);
  }
  nothing_is_in_use(*device);
  CHECK_EQ(figures.pinned, 0);  // nothing of the failed attempt is left
  figures.memory = memory;
  CHECK_EQ(answers(*model, {floats({2, 4}, 1)}).size(), size_t{1});
}

TEST(an_index_that_is_out_of_range_is_an_error_of_the_run) {
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  const auto model = Model::load(data("graph/encoder.onnx"), on(*device));
  auto in = sentences(1, 4, 1);
  in[0] = integers({1, 4}, {1, 2, 30, 4});  // words are 0 to 29
  try {
    answers(*model, in);
    CHECK(false);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kInference);
    CHECK(std::string(error.what()).find("'node_rows' (Gather): an index is out of range") != std::string::npos);
  }
  CHECK_EQ(answers(*model, sentences(1, 4, 1)).size(), size_t{2});
}

/// y = Shrink(x), z = Hardmax(x): neither has a kernel.
ModelFile without_lowerings() {
  ModelFile file;
  Graph& g = file.graph;
  const ValueId x = g.add_value("x"), y = g.add_value("y"), z = g.add_value("z");
  g.values[0].dtype = DType::kF32;
  g.values[0].shape = Shape{Shape::kFree, 3};
  g.nodes = {make_node("Shrink", {x}, {y}), make_node("Hardmax", {x}, {z})};
  g.inputs = {x};
  g.outputs = {y, z};
  file.opsets[""] = 17;
  return file;
}

TEST(what_has_no_lowering_is_named_at_load_all_at_once) {
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  try {
    const Model model(without_lowerings(), on(*device), "");
    CHECK(false);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kUnsupportedOp);
    const std::string what = error.what();
    CHECK(what.find("(Shrink)") != std::string::npos);
    CHECK(what.find("(Hardmax)") != std::string::npos);
    CHECK(what.find("no lowering for the device 'cuda'") != std::string::npos);
  }
  CHECK_EQ(figures.allocations, 0);
}

}  // namespace
