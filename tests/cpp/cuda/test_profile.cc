// What explain() and profile() say of steps on a device: their kernels, and how long these took by the device's clock.
// Between two events of the tests' devices a microsecond passes for each launch, so times can be counted.
#include <numeric>

#include "../engine/graphs.h"
#include "backend_on_host.h"
#include "device/cuda/cuda.h"
#include "driver_on_host.h"
#include "engine/model/explain.h"
#include "models.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

using cuda_on_host::Figures;

constexpr int64_t kOfALaunch = 1000;

std::vector<Tensor> tensors(const std::vector<Input>& inputs) {
  std::vector<Tensor> out;
  for (const Input& in : inputs) out.push_back({in.dtype, in.shape, in.bytes.data(), {}});
  return out;
}

size_t launches_of(const NodeNote& note) {
  return std::accumulate(note.kernels.begin(), note.kernels.end(), size_t{0},
                         [](size_t sum, const KernelNote& kernel) { return sum + kernel.times; });
}

/// Runs the model, and holds every step of the device to the launches that it says it has.
void times_are_those_of_the_launches(Model& model, const std::vector<Input>& inputs) {
  const Explained found = model.profile(tensors(inputs), 2);
  CHECK_EQ(found.runs, 2);
  size_t all = 0;
  for (const ProfiledNode& node : found.nodes) {
    if (node.note.steps == 0) continue;
    CHECK(!node.note.kernels.empty());
    CHECK_EQ(node.nanos, kOfALaunch * static_cast<int64_t>(launches_of(node.note)));
    all += launches_of(node.note);
  }
  CHECK(all > 0);
}

TEST(the_kernels_of_an_mlp_are_named) {
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  const auto model = Model::load(data("graph/mlp.onnx"), on(*device));
  std::vector<Shape> shapes(1);
  std::vector<std::string> names;
  const auto kernels_of_plan = [&] {
    names.clear();
    const Explained found = model->explain(shapes);
    for (const ProfiledNode& node : found.nodes) {
      for (const KernelNote& kernel : node.note.kernels) names.push_back(kernel.kernel);
    }
    return names;
  };
  for (const auto& [rows, kernel] :
       {std::pair(64, "mlp_rows_1"), {65, "mlp_rows_4"}, {257, "mlp_rows_8"}, {1025, "gemm_strips_16"}}) {
    shapes[0] = {rows, 4};
    const auto kernels = kernels_of_plan();
    CHECK(std::ranges::find(kernels, kernel) != kernels.end());
  }
  shapes[0] = {64 * 128, 4};  // tiles for a whole device
  const auto many = kernels_of_plan();
  CHECK(std::ranges::find(many, "gemm_tiled") != many.end());
  CHECK_EQ(figures.allocations, 0);  // to explain takes no memory of the device
  CHECK_EQ(figures.launches, 0);
}

TEST(a_profile_of_the_emulated_device_counts_its_launches) {
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  {
    const auto model = Model::load(data("graph/mlp.onnx"), on(*device));
    times_are_those_of_the_launches(*model, {floats({3, 4}, 1)});
    const auto images = Model::load(data("graph/images.onnx"), on(*device));
    times_are_those_of_the_launches(*images, {floats({2, 3, 9, 8}, 1)});
    const auto encoder = Model::load(data("graph/encoder.onnx"), on(*device));
    times_are_those_of_the_launches(*encoder, sentences(2, 5, 1));
  }
  nothing_is_in_use(*device);
  CHECK_EQ(figures.allocations, 0);
  CHECK_EQ(figures.pinned, 0);
}

TEST(a_profile_through_the_driver_takes_its_events_and_gives_them_back) {
  if (!has_cuda_kernels()) {
    skipped() = "this build has no CUDA kernels: nvcc was not found";
    return;
  }
  CudaOnHostFigures before{}, after{};
  cuda_on_host_figures(&before);
  {
    const auto model = Model::load(data("graph/mlp.onnx"), on(cuda_device()));
    times_are_those_of_the_launches(*model, {floats({3, 4}, 1)});
    answers(*model, {floats({3, 4}, 1)});
  }
  cuda_on_host_figures(&after);
  CHECK_EQ(after.events, before.events);
  CHECK_EQ(after.graphs, before.graphs);
}

TEST(a_run_that_nobody_measures_records_no_event) {
  if (!has_cuda_kernels()) {
    skipped() = "this build has no CUDA kernels: nvcc was not found";
    return;
  }
  CudaOnHostFigures before{}, after{};
  cuda_on_host_figures(&before);
  const auto model = Model::load(data("graph/mlp.onnx"), on(cuda_device()));
  answers(*model, {floats({3, 4}, 1)});
  cuda_on_host_figures(&after);
  CHECK_EQ(after.events, before.events);
}

/// y = Tanh(Hardmax(Tanh(x))): Hardmax has no lowering for CUDA.
ModelFile with_a_step_of_the_cpu() {
  ModelFile file;
  Graph& g = file.graph;
  const ValueId x = g.add_value("x"), a = g.add_value("a"), b = g.add_value("b"), y = g.add_value("y");
  g.values[0].dtype = DType::kF32;
  g.values[0].shape = Shape{Shape::kFree, 64};
  g.nodes = {make_node("Tanh", {x}, {a}), make_node("Hardmax", {a}, {b}), make_node("Tanh", {b}, {y})};
  g.inputs = {x};
  g.outputs = {y};
  file.opsets[""] = 17;
  return file;
}

TEST(a_profile_of_both_sides_has_the_clock_of_each) {
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  ModelOptions options = on(*device);
  options.fallback = true;
  Model model(with_a_step_of_the_cpu(), options, "");
  const Explained found = model.profile(tensors({floats({1000, 64}, 1)}), 2);
  size_t on_device = 0, on_host = 0, copies = 0;
  for (const ProfiledNode& node : found.nodes) {
    if (!node.note.lowering) {
      ++copies;
      CHECK(node.note.kernels.empty());
    } else if (node.note.lowering->device == DeviceKind::kCuda) {
      ++on_device;
      CHECK_EQ(node.nanos, kOfALaunch);
    } else {
      ++on_host;
      CHECK_EQ(node.note.op, "Hardmax");
      CHECK(node.note.kernels.empty());
      CHECK(node.nanos > 0);
    }
  }
  CHECK_EQ(on_device, size_t{2});
  CHECK_EQ(on_host, size_t{1});
  CHECK_EQ(copies, size_t{2});
}

}  // namespace
