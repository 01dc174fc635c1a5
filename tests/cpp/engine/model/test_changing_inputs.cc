// Inputs that change while a model runs on them: an answer of old and new values, or an error; nothing out of bounds,
// and nothing that later runs see.
#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "engine/graphs.h"
#include "engine/model/changing_memory.h"
#include "test.h"

#ifdef INFERKIT_CHANGING_MEMORY
namespace inferkit::testing {
namespace {

/// An input with two contents; those of a steady one are alike.
struct In {
  DType dtype;
  Shape shape;
  std::vector<std::byte> first, second;
};

template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  const auto* at = reinterpret_cast<const std::byte*>(values.data());
  return {at, at + values.size() * sizeof(T)};
}
template <class T>
In in(const Shape& shape, const std::vector<T>& first, const std::vector<T>& second) {
  return {kDTypeOf<T>, shape, bytes_of(first), bytes_of(second)};
}
template <class T>
In in(const Shape& shape, const std::vector<T>& values) {
  return in(shape, values, values);
}

/// Whether memory can change at every access here; else the test is skipped.
bool steps() {
  static const bool works = ChangingMemory::works();
  if (!works) skipped() = "instructions cannot be stepped through here, as below valgrind";
  return works;
}

/// A model of one node: its inputs are the model's, or constants where they are named.
class OneNode {
 public:
  OneNode(const std::string& op, std::vector<In> inputs, size_t outputs = 1) : inputs_(std::move(inputs)) {
    Graph& g = file_.graph;
    std::vector<ValueId> ins, outs;
    for (size_t i = 0; i < inputs_.size(); ++i) {
      ins.push_back(g.add_value("in" + std::to_string(i)));
      g.values.back().dtype = inputs_[i].dtype;
      g.values.back().shape = inputs_[i].shape;
    }
    for (size_t i = 0; i < outputs; ++i) outs.push_back(g.add_value("out" + std::to_string(i)));
    g.inputs = ins;
    g.outputs = outs;
    g.nodes = {make_node(op, ins, outs)};
    node().version = 20;
    file_.opsets[""] = 20;
  }
  Node& node() { return file_.graph.nodes.back(); }
  OneNode& with(const std::string& name, Attribute value) {
    node().attributes[name] = std::move(value);
    return *this;
  }
  OneNode& of(const std::string& domain, int version) {
    node().domain = domain;
    node().version = version;
    return *this;
  }
  /// An output has this type and shape: for models that do not tell it at load.
  OneNode& gives(DType dtype, const Shape& shape, size_t output = 0) {
    Value& value = file_.graph.values[static_cast<size_t>(file_.graph.outputs[output])];
    value.dtype = dtype;
    value.shape = shape;
    return *this;
  }
  /// Between input i and the node stand views of it.
  OneNode& behind_views(size_t i) {
    Graph& g = file_.graph;
    const ValueId once = g.add_value("once"), twice = g.add_value("twice");
    g.nodes.insert(g.nodes.begin(),
                   {make_node("Identity", {g.inputs[i]}, {once}), make_node("Identity", {once}, {twice})});
    node().inputs[i] = twice;
    return *this;
  }

  /// Runs with input `changing` in memory that changes, for many periods and from either content on; then on steady
  /// inputs, where the answer must be that of a model that saw no change.
  void run(size_t changing, const std::function<void(const VectorSink&)>& check = {}) const {
    if (!steps()) return;
    ModelOptions options;
    options.threads = 1;
    Model model(file_, options, ""), untouched(file_, options, "");
    const auto size = static_cast<int>(inputs_[changing].first.size() / dtype_size(inputs_[changing].dtype));
    for (const int period : {1, 2, 3, 4, 5, 7, std::max(size / 2, 1), size, size + 1, 2 * size, 3 * size + 1}) {
      for (const bool swapped : {false, true}) {
        const In& input = inputs_[changing];
        const auto &a = swapped ? input.second : input.first, &b = swapped ? input.first : input.second;
        ChangingMemory memory(a, b, period);
        VectorSink sink;
        std::vector<TensorView> views;
        for (const In& other : inputs_) views.push_back({other.dtype, other.shape, other.first.data()});
        views[changing].data = memory.data();
        const Status status = model.run(views, sink);
        CHECK(memory.accesses() > 0);
        CHECK(status.ok() || status.code == ErrorCode::kInference || status.code == ErrorCode::kValidation);
        if (status.ok() && check) check(sink);
      }
    }
    for (const bool second : {false, true}) {
      std::vector<TensorView> views;
      for (const In& i : inputs_) views.push_back({i.dtype, i.shape, (second ? i.second : i.first).data()});
      VectorSink got, want;
      CHECK_EQ(model.run(views, got).ok(), untouched.run(views, want).ok());
      CHECK(got.values == want.values);
    }
  }

 private:
  std::vector<In> inputs_;
  ModelFile file_;
};

template <class T>
std::vector<T> repeat(size_t count, T value) {
  return std::vector<T>(count, value);
}
std::vector<float> ramp(size_t count) {
  std::vector<float> out(count);
  for (size_t i = 0; i < count; ++i) out[i] = static_cast<float>(i * 37 % count);
  return out;
}
std::vector<float> reversed(std::vector<float> values) {
  std::reverse(values.begin(), values.end());
  return values;
}
const float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr int64_t kFar = int64_t{1} << 40;

/// Every element of output 0 is one of those that `x` holds.
std::function<void(const VectorSink&)> only_ones() {
  return [](const VectorSink& sink) {
    const float* at = sink.floats(0);
    CHECK(std::all_of(at, at + sink.values[0].size() / sizeof(float), [](float v) { return v == 1; }));
  };
}
/// All of output `o`, int64, within [0, n).
std::function<void(const VectorSink&)> places(size_t o, int64_t n) {
  return [o, n](const VectorSink& sink) {
    const auto* at = reinterpret_cast<const int64_t*>(sink.values[o].data());
    CHECK(std::all_of(at, at + sink.values[o].size() / 8, [n](int64_t v) { return v >= 0 && v < n; }));
  };
}

TEST(changing_condition_of_compress) {
  constexpr int64_t n = 65;
  OneNode("Compress", {in<float>({n, 512}, repeat(n * 512, 1.0f)),
                       {DType::kBool, {n}, bytes_of(repeat<uint8_t>(n, 1)), bytes_of(repeat<uint8_t>(n, 0))}})
      .with("axis", int64_t{0})
      .gives(DType::kF32, {Shape::kFree, 512})
      .run(1, only_ones());
}

TEST(changing_values_of_non_zero_and_unique) {
  constexpr int64_t n = 67;
  OneNode("NonZero", {in<float>({n}, repeat(n, 1.0f), repeat(n, 0.0f))})
      .gives(DType::kI64, {1, Shape::kFree})
      .run(0, places(0, n));
  for (const bool sorted : {false, true}) {
    OneNode("Unique", {in<float>({n}, ramp(n), repeat(n, kNan))}, 4)
        .with("sorted", int64_t{sorted})
        .gives(DType::kF32, {Shape::kFree})
        .run(0, places(1, n));
  }
}

TEST(changing_scores_of_non_max_suppression) {
  constexpr int64_t n = 70;
  std::vector<float> boxes;
  for (size_t i = 0; i < n; ++i) {
    const auto at = static_cast<float>(2 * i);
    boxes.insert(boxes.end(), {at, at, at + 1, at + 1});
  }
  const std::vector<In> inputs{in<float>({1, n, 4}, boxes, reversed(boxes)),
                               in<float>({1, 1, n}, ramp(n), repeat(n, kNan)), in<int64_t>({1}, {n}, {1}),
                               in<float>({1}, {0.5f}, {1e9f})};
  for (const size_t changing : {0, 1, 2, 3}) {
    OneNode("NonMaxSuppression", inputs).gives(DType::kI64, {Shape::kFree, 3}).run(changing, places(0, n));
  }
}

TEST(changing_values_that_are_sorted) {
  constexpr int64_t n = 200;
  for (const int64_t k : {3, 50, 200}) {
    for (const bool views : {false, true}) {
      OneNode top("TopK", {in<float>({n}, ramp(n), reversed(ramp(n))), in<int64_t>({1}, {k})}, 2);
      if (views) top.behind_views(0);
      top.run(0, places(1, n));
    }
    OneNode("TopK", {in<float>({n}, ramp(n), repeat(n, kNan)), in<int64_t>({1}, {k})}, 2).run(0, places(1, n));
    OneNode("TopK", {in<float>({n}, ramp(n)), in<int64_t>({1}, {k}, {kFar})}, 2).run(1, places(1, n));
  }
  for (const char* op : {"ArgMax", "ArgMin"}) {
    for (const int64_t last : {0, 1}) {
      OneNode(op, {in<float>({n}, ramp(n), repeat(n, -1.0f))}).with("select_last_index", last).run(0, places(0, n));
      OneNode(op, {in<float>({n}, ramp(n), repeat(n, kNan))}).with("select_last_index", last).run(0, places(0, n));
    }
  }
}

TEST(changing_indices) {
  constexpr int64_t n = 33;
  const In x = in<float>({n, 1}, repeat(n, 1.0f));
  const std::vector<int64_t> good(n, 5), bad(n, kFar);
  OneNode("Gather", {x, in<int64_t>({n}, good, bad)}).run(1, only_ones());
  OneNode("Gather", {x, in<int64_t>({n}, good, bad)}).behind_views(1).run(1, only_ones());
  OneNode("GatherElements", {x, in<int64_t>({n, 1}, good, bad)}).run(1, only_ones());
  OneNode("GatherND", {x, in<int64_t>({n, 1}, good, bad)}).run(1, only_ones());
  OneNode("ScatterElements", {x, in<int64_t>({n, 1}, good, bad), x}).run(1, only_ones());
  OneNode("ScatterND", {x, in<int64_t>({n, 1}, good, bad), x}).run(1, only_ones());
  OneNode("ArrayFeatureExtractor", {in<float>({1, n}, repeat(n, 1.0f)), in<int64_t>({n}, good, bad)})
      .of("ai.onnx.ml", 1)
      .run(1, only_ones());
  OneNode("NegativeLogLikelihoodLoss", {in<float>({n, n}, repeat(n * n, -1.0f)), in<int64_t>({n}, good, bad)})
      .with("reduction", std::string("none"))
      .run(1, only_ones());
  OneNode("MaxUnpool", {in<float>({1, 1, n}, repeat(n, 1.0f)), in<int64_t>({1, 1, n}, good, bad)})
      .with("kernel_shape", std::vector<int64_t>{1})
      .run(1);
  OneNode("OneHot", {in<float>({n}, repeat(n, 3.0f), repeat(n, 1e30f)), in<int64_t>({}, {7}), in<float>({2}, {1, 1})})
      .run(0, only_ones());
}

TEST(changing_lengths) {
  constexpr int64_t n = 9, steps = 6;
  OneNode("ReverseSequence",
          {in<float>({steps, n}, repeat(n * steps, 1.0f)), in<int64_t>({n}, repeat(n, steps), repeat(n, kFar))})
      .run(1, only_ones());
  const std::vector<int32_t> good(n, 2), bad(n, 1 << 30);
  for (const char* op : {"LSTM", "GRU", "RNN"}) {
    const int64_t gates = op[0] == 'L' ? 4 : op[0] == 'G' ? 3 : 1;
    const auto rows = static_cast<size_t>(gates) * 2;
    OneNode(op,
            {in<float>({steps, n, 3}, repeat(steps * n * 3, 0.5f)),
             in<float>({1, gates * 2, 3}, repeat(rows * 3, 0.1f)), in<float>({1, gates * 2, 2}, repeat(rows * 2, 0.1f)),
             in<float>({1, gates * 4}, repeat(rows * 2, 0.0f)), in<int32_t>({n}, good, bad)})
        .run(4);
  }
  OneNode attention("Attention", {in<float>({2, 1, 2, 8}, repeat(32, 1.0f)), in<float>({2, 1, 5, 8}, repeat(80, 1.0f)),
                                  in<float>({2, 1, 5, 8}, repeat(80, 1.0f)), in<int64_t>({2}, {2, 3}, {kFar, -kFar})});
  attention.of("", 24);
  attention.node().inputs = {0, 1, 2, kNoValue, kNoValue, kNoValue, 3};
  attention.run(3);
  OneNode("TensorScatter", {in<float>({2, 8, 1}, repeat(16, 1.0f)), in<float>({2, 3, 1}, repeat(6, 1.0f)),
                            in<int64_t>({2}, {0, 5}, {kFar, -kFar})})
      .of("", 24)
      .with("axis", int64_t{1})
      .run(2, only_ones());
  OneNode rotary("RotaryEmbedding",
                 {in<float>({1, 1, n, 4}, repeat(n * 4, 1.0f)), in<float>({8, 2}, repeat(16, 1.0f)),
                  in<float>({8, 2}, repeat(16, 0.0f)), in<int64_t>({1, n}, repeat(n, int64_t{7}), repeat(n, kFar))});
  rotary.of("", 23).run(3, only_ones());
}

TEST(changing_places_between_pixels) {
  constexpr int64_t n = 21;
  const In image = in<float>({1, 1, 8, 8}, repeat(64, 1.0f));
  for (const char* mode : {"nearest", "linear", "cubic"}) {
    for (const char* padding : {"zeros", "border", "reflection"}) {
      OneNode("GridSample", {image, in<float>({1, n, 1, 2}, repeat(n * 2, 0.2f), repeat(n * 2, 1e30f))})
          .with("mode", std::string(mode))
          .with("padding_mode", std::string(padding))
          .run(1);
    }
  }
  std::vector<float> boxes, far;
  for (int i = 0; i < n; ++i) {
    boxes.insert(boxes.end(), {1, 1, 5, 5});
    far.insert(far.end(), {-1e30f, kNan, 1e30f, 3});
  }
  const In indices = in<int64_t>({n}, repeat(n, int64_t{0}), repeat(n, kFar));
  for (const size_t changing : {1, 2}) {
    OneNode("RoiAlign", {image, in<float>({n, 4}, boxes, far), indices})
        .with("sampling_ratio", int64_t{2})
        .run(changing);
  }
  std::vector<float> rois, far_rois;
  for (int i = 0; i < n; ++i) {
    rois.insert(rois.end(), {0, 1, 1, 5, 5});
    far_rois.insert(far_rois.end(), {1e8f, 1e8f, -1e8f, -1e8f, 1e8f});
  }
  OneNode("MaxRoiPool", {image, in<float>({n, 5}, rois, far_rois)})
      .with("pooled_shape", std::vector<int64_t>{2, 2})
      .run(1);
  OneNode("DeformConv", {image, in<float>({1, 1, 2, 2}, repeat(4, 1.0f)),
                         in<float>({1, 8, 7, 7}, repeat(8 * 49, 0.5f), repeat(8 * 49, -1e30f))})
      .run(2);
}

/// A stage is compiled for values and kept under them: what it is kept under must be what it was compiled for.
TEST(changing_values_that_shape_what_follows) {
  const In x = in<float>({4, 16}, repeat(64, 1.0f));
  OneNode("Reshape", {x, in<int64_t>({2}, {2, 32}, {32, 2})}).gives(DType::kF32, {-1, -1}).run(1, only_ones());
  OneNode("Reshape", {x, in<int64_t>({2}, {2, 32}, {kFar, kFar})}).gives(DType::kF32, {-1, -1}).run(1, only_ones());
  OneNode("Reshape", {x, in<int64_t>({2}, {2, 32}, {32, 2})})
      .behind_views(1)
      .gives(DType::kF32, {-1, -1})
      .run(1, only_ones());
  OneNode("Expand", {in<float>({1, 1}, {1}), in<int64_t>({2}, {3, 40}, {40, 3})})
      .gives(DType::kF32, {-1, -1})
      .run(1, only_ones());
  OneNode("Tile", {x, in<int64_t>({2}, {1, 3}, {5, 1})}).gives(DType::kF32, {-1, -1}).run(1, only_ones());
  OneNode("Slice", {x, in<int64_t>({2}, {0, 0}, {3, 3}), in<int64_t>({2}, {4, 16})})
      .gives(DType::kF32, {-1, -1})
      .run(1, only_ones());
  OneNode("Pad", {x, in<int64_t>({4}, {0, 0, 3, 3}, {9, 9, 0, 0}), in<float>({}, {1})})
      .gives(DType::kF32, {-1, -1})
      .run(1, only_ones());
  OneNode("Split", {x, in<int64_t>({2}, {4, 12}, {12, 4})}, 2)
      .with("axis", int64_t{1})
      .gives(DType::kF32, {-1, -1})
      .gives(DType::kF32, {-1, -1}, 1)
      .run(1, only_ones());
  OneNode("ConstantOfShape", {in<int64_t>({2}, {3, 50}, {50, 3})}).gives(DType::kF32, {-1, -1}).run(0);
  OneNode("Range", {in<int64_t>({}, {0}, {40}), in<int64_t>({}, {50}), in<int64_t>({}, {1})})
      .gives(DType::kI64, {-1})
      .run(0);
  OneNode("Resize",
          {in<float>({1, 1, 4, 4}, repeat(16, 1.0f)), in<float>({0}, {}), in<float>({4}, {1, 1, 2, 3}, {1, 1, 9, 1})})
      .gives(DType::kF32, {-1, -1, -1, -1})
      .run(2, only_ones());
  OneNode("CumSum", {x, in<int64_t>({}, {0}, {1})}).gives(DType::kF32, {-1, -1}).run(1);
}

TEST(changing_trips_of_a_loop) {
  OneNode loop("Loop", {in<int64_t>({}, {3}, {40}), in<float>({5}, repeat(5, 1.0f))});
  auto body = std::make_shared<Graph>();
  const ValueId i = body->add_value("i"), go = body->add_value("go"), v = body->add_value("v");
  const ValueId still = body->add_value("still"), same = body->add_value("same");
  body->inputs = {i, go, v};
  body->nodes = {make_node("Identity", {go}, {still}), make_node("Mul", {v, v}, {same})};
  body->outputs = {still, same};
  loop.node().inputs = {0, kNoValue, 1};
  loop.with("body", body).gives(DType::kF32, {5}).run(0, only_ones());
}

/// What the model reads of its own output is not what the caller may have written there.
class ChangingSink final : public OutputSink {
 public:
  ChangingSink(void* first, std::vector<std::byte>& second) : first_(first), second_(second) {}
  void* allocate(size_t index, DType dtype, const Shape& shape) override {
    if (index == 0) return first_;
    second_.resize(static_cast<size_t>(shape.elements()) * dtype_size(dtype));
    return second_.data();
  }

 private:
  void* first_;
  std::vector<std::byte>& second_;
};

TEST(changing_output_that_is_an_index) {
  if (!steps()) return;
  constexpr int64_t n = 17;
  ModelFile file;
  Graph& g = file.graph;
  const ValueId x = g.add_value("x"), table = g.add_value("table");
  const ValueId index = g.add_value("index"), y = g.add_value("y");
  for (const ValueId id : {x, table}) {
    g.values[static_cast<size_t>(id)].dtype = DType::kF32;
    g.values[static_cast<size_t>(id)].shape = id == x ? Shape{n, 4} : Shape{4};
  }
  Node arg = make_node("ArgMax", {x}, {index});
  arg.attributes["axis"] = int64_t{1};
  arg.attributes["keepdims"] = int64_t{0};
  g.nodes = {arg, make_node("Gather", {table, index}, {y})};
  g.inputs = {x, table};
  g.outputs = {index, y};
  file.opsets[""] = 17;
  ModelOptions options;
  options.threads = 1;
  Model model(file, options, "");
  const std::vector<float> values(n * 4, 0.5f), ones(4, 1.0f);
  const std::vector<std::byte> far = bytes_of(repeat(n, kFar));
  ChangingMemory memory(far, far, 1);
  std::vector<std::byte> second;
  ChangingSink sink(memory.data(), second);
  const TensorView inputs[] = {{DType::kF32, {n, 4}, values.data()}, {DType::kF32, {4}, ones.data()}};
  CHECK(model.run(inputs, sink).ok());
  CHECK(second == bytes_of(repeat(n, 1.0f)));
}

}  // namespace
}  // namespace inferkit::testing
#endif
