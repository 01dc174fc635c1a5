// Models of which a part runs on the CPU, since CUDA has no lowering for it: the bits are those of the CPU, and every
// value is on the side where it is read.
#include <map>
#include <random>

#include "../engine/graphs.h"
#include "backend_on_host.h"
#include "models.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

using cuda_on_host::Figures;

/// Shrink has no lowering for CUDA, Tanh has one.
constexpr const char* kOnCpu = "Shrink";
constexpr const char* kOnDevice = "Tanh";

ModelOptions falling_back(Device& device) {
  ModelOptions options = on(device);
  options.fallback = true;
  return options;
}

/// A model of nodes that each take values of [rows, 4], made one by one.
class Builder {
 public:
  Builder() {
    file_.opsets[""] = 17;
    x_ = value();
    graph().values[static_cast<size_t>(x_)].dtype = DType::kF32;
    graph().values[static_cast<size_t>(x_)].shape = Shape{Shape::kFree, 4};
    graph().inputs = {x_};
  }
  ValueId x() const { return x_; }
  ValueId add(const std::string& op, std::vector<ValueId> in) {
    const ValueId out = value();
    Node node = make_node(op, std::move(in), {out});
    node.name = cat(op, graph().nodes.size());
    graph().nodes.push_back(std::move(node));
    return out;
  }
  ValueId weights(const std::vector<float>& values, const Shape& shape) {
    const ValueId id = value();
    graph().constants.emplace(id, make_tensor<float>(shape, values));
    return id;
  }
  ValueId integers(const std::vector<int64_t>& values) {
    const ValueId id = value();
    graph().constants.emplace(id, make_tensor<int64_t>({static_cast<int64_t>(values.size())}, values));
    return id;
  }
  ValueId reshaped(ValueId from, const std::vector<int64_t>& shape) { return add("Reshape", {from, integers(shape)}); }
  ModelFile file(std::vector<ValueId> outputs) const {
    ModelFile out = file_;
    out.graph.outputs = std::move(outputs);
    return out;
  }

 private:
  ValueId value() { return graph().add_value(cat("v", graph().values.size())); }
  Graph& graph() { return file_.graph; }
  ModelFile file_;
  ValueId x_ = 0;
};

/// Runs both for several batches and seeds, and expects so many graphs for each batch.
void same_with_fallback(const std::string& name, const ModelFile& file, int64_t graphs) {
  if (!comparable()) return;
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  {
    Model there(file, falling_back(*device), ""), here(file, {}, "");
    const auto inputs = [](int64_t batch, uint32_t seed) { return std::vector<Input>{floats({batch, 4}, seed)}; };
    const auto set_seed = [&](uint64_t seed) { figures.seed = 1000 * seed; };
    if (!same_answers(there, here, name, {1, 3, 40}, inputs, set_seed)) return;
    CHECK_EQ(figures.captures, 3 * graphs);
  }
  nothing_is_in_use(*device);
  CHECK_EQ(figures.allocations, 0);
  CHECK_EQ(figures.pinned, 0);
}

TEST(a_step_between_two_of_the_device_runs_on_the_cpu) {
  Builder b;
  const ValueId before = b.add(kOnDevice, {b.x()}), middle = b.add(kOnCpu, {before});
  same_with_fallback("middle", b.file({b.add(kOnDevice, {middle})}), 2);
}

TEST(a_step_of_the_cpu_reads_the_input_where_it_came_in) {
  Builder b;
  const ValueId first = b.add(kOnCpu, {b.x()});
  same_with_fallback("first", b.file({b.add("Add", {b.add(kOnDevice, {b.x()}), first})}), 1);
}

TEST(an_output_may_be_made_on_either_side_and_read_on_the_other) {
  Builder b;
  const ValueId there = b.add(kOnDevice, {b.x()}), here = b.add(kOnCpu, {there}), last = b.add(kOnDevice, {here});
  same_with_fallback("outputs", b.file({here, there, last}), 2);
}

TEST(an_output_that_is_an_input_or_twice_the_same_is_copied_on_its_side) {
  Builder b;
  const ValueId here = b.add(kOnCpu, {b.x()}), same = b.reshaped(here, {-1, 2});
  same_with_fallback("copies", b.file({here, same, b.reshaped(b.x(), {-1})}), 1);
}

TEST(a_model_may_run_on_the_cpu_alone) {
  Builder b;
  same_with_fallback("alone", b.file({b.add(kOnCpu, {b.add("Hardmax", {b.x()})})}), 0);
}

TEST(weights_are_on_both_sides) {
  Builder b;
  const ValueId w = b.weights({0.5f, -1.25f, 2, 3.1f}, {4});
  const ValueId rest = b.add("Mod", {b.add("Exp", {b.add("Add", {b.x(), w})}), w});
  ModelFile file = b.file({b.add("Add", {rest, w})});
  file.graph.nodes[2].attributes["fmod"] = int64_t{1};  // of floats, which the device has not
  same_with_fallback("weights", file, 2);
}

TEST(memory_is_given_again_on_both_sides) {
  Builder b;
  ValueId v = b.x();
  for (int i = 0; i < 6; ++i) v = b.add("Add", {b.add(kOnCpu, {b.add(kOnCpu, {v})}), b.add(kOnDevice, {v})});
  same_with_fallback("chain", b.file({v}), 6);
}

/// Nodes of any kind on values that are there already, and any of them as outputs.
ModelFile drawn(uint32_t seed) {
  std::mt19937 draw(seed);
  Builder b;
  std::vector<ValueId> values{b.x()};
  const auto any = [&] { return values[draw() % values.size()]; };
  for (int i = 0; i < 12; ++i) {
    switch (draw() % 7) {
      case 0:
      case 1:
        values.push_back(b.add(kOnDevice, {any()}));
        break;
      case 2:
      case 3:
        values.push_back(b.add(kOnCpu, {any()}));
        break;
      case 4:
        values.push_back(b.reshaped(b.add(draw() % 2 ? kOnCpu : kOnDevice, {b.reshaped(any(), {-1})}), {-1, 4}));
        break;
      case 5:
        values.push_back(b.add("Mul", {any(), any()}));
        break;
      default:
        values.push_back(b.add("Hardmax", {any()}));
    }
  }
  std::vector<ValueId> outputs{values.back()};
  for (int i = 0; i < 3; ++i) {
    if (const ValueId v = any(); std::ranges::find(outputs, v) == outputs.end() && v != b.x()) outputs.push_back(v);
  }
  return b.file(outputs);
}

TEST(any_graph_of_both_sides_has_the_bits_of_the_cpu) {
  if (!comparable()) return;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    const ModelFile file = drawn(seed);
    Figures figures;
    const auto device = cuda_on_host::make_device(figures);
    Model there(file, falling_back(*device), ""), here(file, {}, "");
    const auto inputs = [](int64_t batch, uint32_t s) { return std::vector<Input>{floats({batch, 4}, s)}; };
    const auto set_seed = [&](uint64_t s) { figures.seed = 1000 * s; };
    if (!same_answers(there, here, cat("graph ", seed), {1, 5}, inputs, set_seed)) return;
  }
}

TEST(explain_shows_where_steps_run_and_what_is_copied) {
  Builder b;
  const ValueId before = b.add(kOnDevice, {b.x()}), middle = b.add(kOnCpu, {before});
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  Model model(b.file({b.add(kOnDevice, {middle})}), falling_back(*device), "");
  const Shape shape{2, 4};
  const Explained explained = model.explain({&shape, 1});
  CHECK_EQ(explained.nodes.size(), size_t{5});
  const auto& nodes = explained.nodes;
  CHECK(nodes[0].note.lowering->device == DeviceKind::kCuda);
  CHECK(nodes[0].note.fallback.empty());
  CHECK(!nodes[1].note.lowering && nodes[1].note.to == DeviceKind::kCpu && nodes[1].note.device == DeviceKind::kCuda);
  CHECK(nodes[2].note.lowering->device == DeviceKind::kCpu);
  CHECK_EQ(nodes[2].note.fallback, "it has no lowering for the device 'cuda'");
  CHECK(!nodes[3].note.lowering && nodes[3].note.to == DeviceKind::kCuda);
  CHECK_EQ(nodes[3].note.read_bytes, size_t{32});
  CHECK(nodes[4].note.lowering->device == DeviceKind::kCuda);
}

TEST(light_steps_between_steps_of_the_cpu_stay_there) {
  Builder b;
  const ValueId w = b.weights({0.5f, -1.25f, 2, 3.1f}, {4}), first = b.add(kOnCpu, {b.x()});
  const ValueId one = b.add(kOnDevice, {first}), two = b.add("Mul", {b.add("Add", {one, w}), b.x()});
  const ValueId flat = b.add("Relu", {b.reshaped(two, {-1})}), last = b.add(kOnCpu, {flat});
  same_with_fallback("between", b.file({last}), 0);
  same_with_fallback("between, and an output", b.file({one, last}), 0);
}

TEST(light_steps_that_the_device_feeds_or_reads_run_on_it) {
  Builder b;
  const ValueId w = b.weights(std::vector<float>(16, 0.25f), {4, 4});
  const ValueId first = b.add(kOnCpu, {b.x()}), light = b.add(kOnDevice, {first});
  const ValueId product = b.add("MatMul", {light, w}), next = b.add("Add", {product, first});
  same_with_fallback("read by a product", b.file({b.add(kOnCpu, {light}), product}), 1);
  same_with_fallback("fed by a product", b.file({b.add(kOnCpu, {next})}), 1);
  // One of a chain that another branch takes to the device brings all before it there.
  const ValueId chain = b.add("Relu", {light});
  const ValueId other = b.add("MatMul", {chain, w});
  same_with_fallback("a branch", b.file({b.add(kOnCpu, {chain}), other}), 1);
}

TEST(what_is_not_light_goes_over_and_back) {
  Builder b;
  const ValueId w = b.weights(std::vector<float>(16, 0.25f), {4, 4});
  const ValueId product = b.add("MatMul", {b.add(kOnCpu, {b.x()}), w});
  same_with_fallback("a product", b.file({b.add(kOnCpu, {product})}), 1);
}

TEST(explain_says_why_a_light_step_stays) {
  Builder b;
  const ValueId light = b.add(kOnDevice, {b.add(kOnCpu, {b.x()})});
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  Model model(b.file({b.add(kOnCpu, {light})}), falling_back(*device), "");
  const Shape shape{2, 4};
  const Explained explained = model.explain({&shape, 1});
  CHECK_EQ(explained.nodes.size(), size_t{3});  // and no copy
  CHECK_EQ(explained.nodes[1].note.op, kOnDevice);
  CHECK(explained.nodes[1].note.lowering->device == DeviceKind::kCpu);
  CHECK_EQ(explained.nodes[1].note.fallback, "it is light, and what it reads and who reads it are on the CPU");
}

TEST(a_view_of_what_the_cpu_made_stays_there) {
  Builder b;
  const ValueId here = b.add(kOnCpu, {b.x()}), view = b.reshaped(here, {-1});
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  Model model(b.file({b.add(kOnCpu, {view})}), falling_back(*device), "");
  const Shape shape{2, 4};
  for (const ProfiledNode& node : model.explain({&shape, 1}).nodes) {
    CHECK(node.note.lowering && node.note.lowering->device == DeviceKind::kCpu);
  }
}

TEST(an_error_of_a_step_on_the_cpu_names_its_node_and_the_next_run_works) {
  Builder b;
  const ValueId index = b.add("Cast", {b.add(kOnDevice, {b.x()})});
  ModelFile file = b.file({b.add("ScatterElements", {b.x(), index, b.x()})});
  file.graph.nodes[1].attributes["to"] = int64_t{7};
  file.graph.nodes[2].attributes["reduction"] = std::string("max");  // which the device has not
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  Model model(file, falling_back(*device), "");
  Input wrong = floats({1, 4}, 1);
  const float large = 1e6f;  // whose Tanh is 1: there is one row
  std::memcpy(wrong.bytes.data(), &large, sizeof(large));
  try {
    answers(model, {wrong});
    CHECK(false);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kInference);
    CHECK(std::string(error.what()).find("(ScatterElements)") != std::string::npos);
  }
  Input right = wrong;
  std::fill(right.bytes.begin(), right.bytes.end(), std::byte{0});
  CHECK_EQ(answers(model, {right}).size(), size_t{1});
}

TEST(an_error_behind_a_copy_names_its_own_node) {
  Builder b;
  const ValueId made = b.add(kOnCpu, {b.add(kOnDevice, {b.x()})});  // brought over before it
  const ValueId back = b.add(kOnDevice, {made});
  const ValueId index = b.add("Cast", {b.x()});
  ModelFile file = b.file({back, b.add("ScatterElements", {b.x(), index, b.x()})});
  file.graph.nodes[3].attributes["to"] = int64_t{7};
  file.graph.nodes[4].attributes["reduction"] = std::string("max");
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  Model model(file, falling_back(*device), "");
  Input wrong = floats({1, 4}, 1);
  const float large = 100;  // there is one row
  std::memcpy(wrong.bytes.data(), &large, sizeof(large));
  try {
    answers(model, {wrong});
    CHECK(false);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kInference);
    CHECK(std::string(error.what()).find("'ScatterElements4' (ScatterElements)") != std::string::npos);
  }
}

TEST(without_a_fallback_it_is_refused_as_before) {
  Builder b;
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  try {
    const Model model(b.file({b.add(kOnCpu, {b.x()})}), on(*device), "");
    CHECK(false);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kUnsupportedOp);
  }
}

TEST(what_a_device_lacks_can_be_asked_without_it) {
  Builder b;
  const ValueId here = b.add(kOnCpu, {b.x()}), there = b.add(kOnDevice, {here});
  ModelOptions options;
  options.lacking = std::make_shared<Lacking>(DeviceKind::kCuda);
  const Model model(b.file({there}), options, "");
  CHECK_EQ(options.lacking->nodes(), size_t{2});
  const auto lacks = options.lacking->lacks();
  CHECK_EQ(lacks.size(), size_t{1});
  CHECK_EQ(lacks[0].op, kOnCpu);
  CHECK_EQ(lacks[0].name, "Shrink0");
  CHECK_EQ(lacks[0].why, "it has no lowering for the device 'cuda'");
}

}  // namespace
