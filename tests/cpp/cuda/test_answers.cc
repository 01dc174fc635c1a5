// Answers as words that the host polls for, on the emulator and over the tests' driver. There a graph is done when it
// is waited for and not before, so that no word ever comes while the host looks.
#include "../engine/graphs.h"
#include "backend_on_host.h"
#include "driver_on_host.h"
#include "models.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

using cuda_on_host::Figures;

std::vector<Input> rows(int64_t batch, uint32_t seed) { return {floats({batch, 4}, seed)}; }

TEST(the_kernel_of_answers_marks_each_value_with_the_run) {
  for (const int64_t n : {1, 5, 300, 1000}) {
    std::vector<uint32_t> x(static_cast<size_t>(n));
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<uint32_t>(i * 2654435761u);
    std::vector<uint64_t> y(x.size() + 1, 7);
    const uint32_t run = 0xfffffff0u;
    const kernels::cuda::AnswerParams p{x.data(), &run, y.data(), n};
    cuda_on_host::launch(kernels::cuda::Kernel::answer, {.blocks = {2}, .threads = {256}}, &p);
    for (size_t i = 0; i < x.size(); ++i) CHECK_EQ(y[i], uint64_t{run} << 32 | x[i]);
    CHECK_EQ(y.back(), uint64_t{7});
  }
}

TEST(small_outputs_come_without_a_wait_for_the_graph) {
  if (!comparable()) return;
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  {
    const auto there = Model::load(data("graph/mlp.onnx"), on(*device));
    const auto here = Model::load(data("graph/mlp.onnx"));
    if (!same_answers(*there, *here, "mlp", {1, 3, 64}, rows, [&](uint64_t seed) { figures.seed = seed; })) return;
    CHECK_EQ(figures.waits, 0);
    // More than is polled for: 8 KiB.
    if (!same_answers(*there, *here, "mlp", {1000}, rows, [](uint64_t) {})) return;
    CHECK_EQ(figures.waits, static_cast<int64_t>(std::size(kSeeds)));
  }
  nothing_is_in_use(*device);
}

TEST(what_may_fail_for_its_data_is_waited_for) {
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  const auto model = Model::load(data("graph/encoder.onnx"), on(*device));
  answers(*model, sentences(1, 5, 1));
  CHECK_EQ(figures.waits, 1);
}

TEST(words_of_an_earlier_run_are_no_answer) {
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  const auto lost = [&](Model& model) {
    figures.loses = true;
    try {
      answers(model, rows(2, 2));
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kDevice);
      CHECK_EQ(std::string(error.what()), "the CUDA device has ended a run without its answers");
      return true;
    }
    return false;
  };
  std::vector<std::vector<std::byte>> want;
  {
    const auto model = Model::load(data("graph/mlp.onnx"), on(*device));
    want = answers(*model, rows(2, 2));
    CHECK(lost(*model));
    CHECK_EQ(model->device_failure(), "the CUDA device has ended a run without its answers");
    CHECK(answers(*model, rows(2, 2)) == want);
    CHECK_EQ(model->device_failure(), "");
  }
  answers(*Model::load(data("graph/mlp.onnx"), on(*device)), rows(2, 3));
  // Its first run has the number of that model's only run, and the pool gives it that one's memory.
  const auto next = Model::load(data("graph/mlp.onnx"), on(*device));
  CHECK(lost(*next));
  CHECK(answers(*next, rows(2, 2)) == want);
}

/// x > 0.25 and x + 0.25: three bytes for each row, which end between two words, and twelve.
ModelFile two_outputs() {
  ModelFile file;
  Graph& g = file.graph;
  const ValueId x = g.add_value("x"), w = g.add_value("w"), more = g.add_value("more"), sum = g.add_value("sum");
  g.values[0].dtype = DType::kF32;
  g.values[0].shape = Shape{Shape::kFree, 3};
  const float quarter[] = {0.25f};
  g.constants.emplace(w, make_tensor<float>({1}, quarter));
  g.nodes = {make_node("Greater", {x, w}, {more}), make_node("Add", {x, w}, {sum})};
  g.inputs = {x};
  g.outputs = {more, sum};
  file.opsets[""] = 17;
  return file;
}

TEST(several_outputs_of_all_sizes_are_polled_for) {
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  Model there(two_outputs(), on(*device), ""), here(two_outputs(), {}, "");
  for (const int64_t batch : {1, 2, 3, 7, 4, 0}) {
    const std::vector<Input> in{floats({batch, 3}, static_cast<uint32_t>(batch))};
    CHECK(answers(there, in) == answers(here, in));
  }
  CHECK_EQ(figures.waits, 1);  // of no row, where there is nothing to poll for
}

TEST(a_product_that_is_the_last_step_writes_its_words_itself) {
  if (!comparable()) return;
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  Model there(small_model(), on(*device), ""), here(small_model(), {}, "");
  const auto inputs = [](int64_t batch, uint32_t seed) { return std::vector<Input>{floats({batch, 3}, seed)}; };
  const auto seed = [&](uint64_t number) { figures.seed = number; };
  if (!same_answers(there, here, "a product", {1, 8, 9, 70, 1024}, inputs, seed)) return;
  CHECK_EQ(figures.waits, 0);
  CHECK_EQ(figures.launches, static_cast<int64_t>(5 * std::size(kSeeds)));
  figures.loses = true;
  try {
    answers(there, inputs(9, 1));
    CHECK(false);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kDevice);
  }
  if (!same_answers(there, here, "a larger product", {1025}, inputs, seed)) return;  // 8 bytes more than 8 KiB
  CHECK_EQ(figures.waits, 1 + static_cast<int64_t>(std::size(kSeeds)));
}

TEST(an_output_that_another_step_reads_is_written_for_both) {
  if (!comparable()) return;
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  ModelFile file = small_model();
  const ValueId more = file.graph.add_value("more");
  file.graph.nodes.push_back(make_node("Tanh", {file.graph.outputs[0]}, {more}));
  file.graph.outputs.push_back(more);
  Model there(file, on(*device), ""), here(file, {}, "");
  const std::vector<Input> in{floats({5, 3}, 1)};
  CHECK(answers(there, in) == answers(here, in));
  CHECK_EQ(figures.waits, 0);
}

/// What is not polled for is waited for: over the tests' driver nothing has been done before.
TEST(the_driver_is_waited_for_where_there_is_nothing_to_poll_for) {
  if (!has_cuda_kernels()) {
    skipped() = "this build has no CUDA kernels: nvcc was not found";
    return;
  }
  if (!comparable()) return;
  cuda_device().trim();
  CudaOnHostFigures before{}, after{};
  cuda_on_host_figures(&before);
  {
    // No row at all; and a step of the CPU behind the last one of the device, which gives an output, too, or does not.
    Model plain(small_model(), on(cuda_device()), "");
    CHECK_EQ(answers(plain, {floats({0, 3}, 1)}).at(0).size(), size_t{0});
    for (const bool both : {false, true}) {
      ModelFile file = small_model();
      const ValueId y = file.graph.outputs[0], more = file.graph.add_value("more");
      file.graph.nodes.push_back(make_node("Atan", {y}, {more}));
      file.graph.outputs = both ? std::vector<ValueId>{y, more} : std::vector<ValueId>{more};
      ModelOptions options = on(cuda_device());
      options.fallback = true;
      Model there(file, options, ""), here(file, {}, "");
      for (const int64_t batch : {1, 5, 0}) {
        const std::vector<Input> in{floats({batch, 3}, 7)};
        CHECK(answers(there, in) == answers(here, in));
      }
    }
  }
  nothing_is_in_use(cuda_device());
  cuda_on_host_figures(&after);
  CHECK(after.streams <= before.streams + 1);  // that of uploads stays
  CHECK_EQ(after.graphs, before.graphs);
}

TEST(answers_of_the_driver_come_when_its_graph_has_been_waited_for) {
  if (!has_cuda_kernels()) {
    skipped() = "this build has no CUDA kernels: nvcc was not found";
    return;
  }
  if (!comparable()) return;
  const auto there = Model::load(data("graph/mlp.onnx"), on(cuda_device()));
  const auto here = Model::load(data("graph/mlp.onnx"));
  CudaOnHostFigures before{}, after{};
  answers(*there, rows(2, 1));
  cuda_on_host_figures(&before);
  for (uint32_t seed = 0; seed < 4; ++seed) CHECK(answers(*there, rows(2, seed)) == answers(*here, rows(2, seed)));
  cuda_on_host_figures(&after);
  // Both layers, Softmax, and the kernel that writes the words.
  CHECK_EQ(after.launches - before.launches, 4 * (2 + 1));
}

}  // namespace
