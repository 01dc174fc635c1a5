// Attention on the tests' CUDA device: one kernel, with the bits of the operators that it stands for.
#include <algorithm>

#include "engine/model/explain.h"
#include "kernels/cuda/attention.h"
#include "operators.h"

using namespace inferkit;
using namespace inferkit::testing;
namespace cuda = inferkit::kernels::cuda;

namespace {

/// A model of attention as exporters write it.
struct Attention {
  int64_t batch = 1, heads = 2, rows = 16, keys = 16, size = 8, value_size = 8;
  std::string scaled = "Mul";  // or Div, or nothing
  std::optional<Shape> mask = {};
  bool together = false;  // q, k and v are parts of one input [batch, rows, 3, heads, size]
  bool apart = false;     // of inputs [batch, rows, heads * size]
  bool split = false;     // of one input [batch, rows, 3 * heads * size]
  bool joined = false;    // the answer is [batch, rows, heads * value_size]
  bool wild = false;

  std::string str() const {
    return cat(batch, " x ", heads, " heads of ", size, " and ", value_size, ", ", rows, " rows, ", keys, " keys, ",
               scaled, mask ? cat(" mask ", mask->str()) : "", together ? " together" : "", apart ? " apart" : "",
               split ? " split" : "", joined ? " joined" : "", wild ? " wild" : "");
  }
};

class Builder {
 public:
  ValueId input(const Shape& shape, std::vector<float> values) {
    const ValueId id = made_.graph.add_value(cat("in", made_.values.size()));
    made_.values.push_back(make_tensor<float>(shape, values));
    made_.graph.inputs.push_back(id);
    made_.facts.push_back({DType::kF32, shape});
    return id;
  }
  ValueId number(float value) { return constant(make_tensor<float>({}, std::vector<float>{value})); }
  ValueId integers(const Ints& values) {
    return constant(make_tensor<int64_t>({static_cast<int64_t>(values.size())}, values));
  }
  ValueId index(int64_t value) { return constant(make_tensor<int64_t>({}, Ints{value})); }
  ValueId put(const std::string& op, const std::vector<ValueId>& inputs,
              std::map<std::string, Attribute, std::less<>> attributes = {}) {
    const ValueId out = made_.graph.add_value(cat("v", made_.graph.nodes.size()));
    Node node = make_node(op, inputs, {out});
    node.name = cat(op, made_.graph.nodes.size());
    node.attributes = std::move(attributes);
    made_.graph.nodes.push_back(node);
    return out;
  }
  ValueId transpose(ValueId x, const Ints& perm) { return put("Transpose", {x}, {{"perm", perm}}); }
  std::vector<ValueId> split(ValueId x, size_t parts) {
    std::vector<ValueId> out{put("Split", {x}, {{"axis", int64_t{-1}}})};
    while (out.size() < parts) out.push_back(made_.graph.add_value(cat("part", out.size())));
    made_.graph.nodes.back().outputs = out;
    return out;
  }
  Made finish(ValueId y) {
    made_.graph.outputs.push_back(y);
    return std::move(made_);
  }

 private:
  ValueId constant(Tensor value) {
    value.id = 1000 + made_.graph.values.size();
    const ValueId id = made_.graph.add_value(cat("c", made_.graph.values.size()));
    made_.graph.constants.emplace(id, value);
    return id;
  }
  Made made_;
};

Made model_of(const Attention& a) {
  Builder b;
  uint32_t seed = 3;
  const auto drawn = [&](const Shape& shape) {
    const auto n = static_cast<size_t>(shape.elements());
    ++seed;
    return b.input(shape, a.wild ? wild_floats(n, seed) : random_floats(n, seed, -2, 2));
  };
  ValueId q{}, k{}, v{};
  if (a.together) {
    const ValueId all = b.transpose(drawn({a.batch, a.rows, 3, a.heads, a.size}), {2, 0, 3, 1, 4});
    q = b.put("Gather", {all, b.index(0)});
    k = b.put("Gather", {all, b.index(1)});
    v = b.put("Gather", {all, b.index(-1)});
  } else if (a.apart || a.split) {
    const auto heads_of = [&](ValueId joined, int64_t size) {
      return b.transpose(b.put("Reshape", {joined, b.integers({0, 0, a.heads, size})}), {0, 2, 1, 3});
    };
    const int64_t width = a.heads * a.size;
    const auto parts = a.split ? b.split(drawn({a.batch, a.rows, 3 * width}), 3)
                               : std::vector<ValueId>{drawn({a.batch, a.rows, width}), drawn({a.batch, a.keys, width}),
                                                      drawn({a.batch, a.keys, a.heads * a.value_size})};
    q = heads_of(parts[0], a.size);
    k = heads_of(parts[1], a.size);
    v = heads_of(parts[2], a.value_size);
  } else {
    q = drawn({a.batch, a.heads, a.rows, a.size});
    k = drawn({a.batch, a.heads, a.keys, a.size});
    v = drawn({a.batch, a.heads, a.keys, a.value_size});
  }
  ValueId scores = b.put("MatMul", {q, b.transpose(k, {0, 1, 3, 2})});
  if (a.scaled == "Mul") scores = b.put("Mul", {scores, b.number(0.31f)});
  if (a.scaled == "Div") scores = b.put("Div", {scores, b.number(2.7f)});
  if (a.mask) {
    std::vector<float> values = random_floats(static_cast<size_t>(a.mask->elements()), 9, -2, 2);
    for (size_t i = 0; i < values.size(); i += 3) values[i] = i % 2 == 0 ? -INFINITY : -3.4e38f;
    scores = b.put("Add", {b.input(*a.mask, values), scores});
  }
  ValueId y = b.put("MatMul", {b.put("Softmax", {scores}, {{"axis", int64_t{-1}}}), v});
  if (a.joined) y = b.put("Reshape", {b.transpose(y, {0, 2, 1, 3}), b.integers({0, 0, a.heads * a.value_size})});
  return b.finish(y);
}

/// The launches of one run on the emulator; its answers are compared with the CPU's under all seeds.
int64_t launches(const Made& made, const std::string& what) {
  if (!comparable()) return -1;
  Figures figures;
  const Compared compared(figures);
  const auto want = run(made, cpu_device(), 1);
  int64_t count = -1;
  for (const uint64_t seed : kSeeds) {
    figures.seed = 100 * seed;
    figures.launches = 0;
    const auto got = run(made, compared.device(), 1);
    count = compared.emulated() ? figures.launches.load() : -1;
    for (size_t i = 0; i < want.size(); ++i) {
      const auto* a = reinterpret_cast<const float*>(got[i].second.data());
      const auto* b = reinterpret_cast<const float*>(want[i].second.data());
      if (!same_values(a, b, want[i].second.size() / sizeof(float), cat(what, ", seed ", seed))) return -1;
    }
  }
  return count;
}
constexpr int64_t kOne = 2;  // the kernel, and what writes the words of an answer that is short

/// That it is one kernel, with the bits of the CPU.
void is_one_kernel(const Attention& a) {
  const int64_t count = launches(model_of(a), a.str());
  if (count > kOne) fail(__FILE__, __LINE__, cat(a.str(), ": ", count, " launches"));
}

TEST(attention_has_the_bits_of_its_operators) {
  for (const int64_t keys : {1, 7, 16, 100, 128, 129, 300}) {
    for (const int64_t size : {8, 32, 64, 80}) {
      is_one_kernel({.heads = 1, .rows = 5, .keys = keys, .size = size, .value_size = size});
    }
  }
  is_one_kernel({.rows = 70, .keys = 33, .size = 5, .value_size = 3, .scaled = "Div"});
  is_one_kernel({.batch = 3, .rows = 19, .keys = 40, .size = 33, .value_size = 128, .scaled = ""});
  is_one_kernel({.rows = 3, .keys = 1000, .size = 4, .value_size = 4});
}

TEST(attention_of_wild_values_has_the_bits_of_its_operators) {
  for (const int64_t keys : {3, 64, 150}) is_one_kernel({.rows = 20, .keys = keys, .wild = true});
  is_one_kernel({.rows = 4, .keys = 40, .scaled = "Div", .mask = Shape{1, 1, 1, 40}, .wild = true});
}

TEST(masks_of_attention_are_broadcast) {
  for (const Shape& mask : {Shape{3, 1, 1, 40}, Shape{3, 1, 18, 40}, Shape{18, 40}, Shape{40}, Shape{1, 2, 18, 1},
                            Shape{3, 2, 18, 40}, Shape{1}, Shape{2, 1, 40}}) {
    is_one_kernel({.batch = 3, .rows = 18, .keys = 40, .mask = mask});
    is_one_kernel({.batch = 3, .rows = 18, .keys = 40, .scaled = "", .mask = mask, .apart = true, .joined = true});
  }
}

TEST(what_only_moves_the_operands_of_attention_is_no_step) {
  for (const int64_t batch : {1, 3}) {
    is_one_kernel({.batch = batch, .rows = 18, .keys = 18, .together = true});
    is_one_kernel({.batch = batch, .rows = 18, .keys = 18, .split = true, .joined = true});
    is_one_kernel({.batch = batch, .rows = 18, .keys = 18, .together = true, .joined = true});
    is_one_kernel({.batch = batch, .rows = 18, .keys = 21, .size = 6, .value_size = 10, .apart = true, .joined = true});
  }
}

TEST(attention_that_is_no_such_pattern_stays_in_steps) {
  const auto count = [](const Attention& a) { return launches(model_of(a), a.str()); };
  // Longer chunks, and a mask that makes the scores larger than the product.
  const int64_t longer = count({.heads = 1, .rows = 2, .keys = 1025}),
                wide = count({.batch = 1, .mask = Shape{3, 1, 16, 16}});
  if (longer >= 0) CHECK(longer > kOne);
  if (wide >= 0) CHECK(wide > kOne);
  // Scores that are an answer, too.
  Made made = model_of({});
  const auto softmax = std::ranges::find(made.graph.nodes, "Softmax", &Node::op_type);
  made.graph.outputs.push_back(softmax->outputs[0]);
  const int64_t both = launches(made, "scores as an answer");
  if (both >= 0) CHECK(both > kOne + 1);
  // Keys that somebody else reads turned: they are made, and read all the same.
  Made turned = model_of({});
  const auto transpose = std::ranges::find(turned.graph.nodes, "Transpose", &Node::op_type);
  turned.graph.outputs.push_back(transpose->outputs[0]);
  const int64_t with_keys = launches(turned, "turned keys as an answer");
  if (with_keys >= 0) CHECK_EQ(with_keys, kOne + 2);
}

TEST(explain_says_what_attention_stands_for) {
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  const auto model = Model::load(data("graph/encoder.onnx"), on(*device));
  const auto in = sentences(2, 5, 1);
  const std::vector<Shape> shapes{in[0].shape, in[1].shape};
  const Explained found = model->explain(shapes);
  int64_t steps = 0;
  for (const ProfiledNode& node : found.nodes) {
    CHECK(node.note.op != "Softmax");
    if (node.note.op != "inferkit.Attention") continue;
    ++steps;
    CHECK_EQ(node.note.steps, size_t{1});
    CHECK_EQ(node.note.kernels.at(0).kernel, std::string("attention_2"));
    std::vector<std::string> parts;
    for (const NodeOrigin& part : node.note.origins) parts.push_back(part.op);
    for (const char* op : {"MatMul", "Softmax", "Transpose"}) CHECK(std::ranges::count(parts, op) > 0);
  }
  CHECK(steps > 0);
}

// ---- The kernel by itself
// ---------------------------------------------------------------------------------------------

constexpr int kEach[] = {2, 4, 8};
cuda::Kernel kernel_of(int rows) {
  return rows == 2 ? cuda::Kernel::attention_2 : rows == 4 ? cuda::Kernel::attention_4 : cuda::Kernel::attention_8;
}
cuda::AttentionParams params_of(const std::vector<float>& x, std::vector<float>& y, int64_t rows, int32_t keys,
                                int32_t size, int64_t batch, int32_t piece) {
  cuda::AttentionParams p{};
  p.q = x.data();
  p.k = x.data() + 1;
  p.v = x.data() + 2;
  p.y = y.data();
  p.rows = rows;
  p.keys = keys;
  p.size = p.value_size = size;
  p.line = cuda::attention_line(size, size);
  p.piece = std::min(piece, keys);
  p.how = cuda::AttentionScale::kMultiply;
  p.scale = 0.3f;
  p.q_row = p.k_row = p.v_row = p.y_row = size;
  p.q_col = p.k_col = p.y_col = 1;
  p.batch.n = batch;
  p.batch.rank = 1;
  p.batch.dims[0] = batch;
  for (const int i : {0, 1, 2}) p.batch.strides[i][0] = keys * size;
  p.batch.strides[4][0] = rows * size;
  return p;
}
void launch_in(const cuda::AttentionParams& p, int rows, cuda_on_host::Grid grid) {
  grid.threads = {cuda::kAttentionThreads};
  grid.shared_bytes = cuda::attention_shared(rows, p);
  cuda_on_host::launch(kernel_of(rows), grid, &p);
}

TEST(rows_of_attention_are_the_same_in_every_cut) {
  const FloatEnvironment ours;
  for (const int32_t keys : {30, 140}) {
    const int64_t rows = 37, batch = 3;
    const auto x = random_floats(static_cast<size_t>(batch * keys * 12 + 500), 3, -2, 2);
    std::vector<float> want(static_cast<size_t>(batch * rows * 12)), y(want.size());
    auto p = params_of(x, want, std::min<int64_t>(rows, keys), keys, 12, batch, 1000);
    launch_in(p, 2, {.blocks = {3, 1, 3}});
    for (const int each : kEach) {
      p.piece = each * 16;
      for (const cuda_on_host::Dim3 blocks : {cuda_on_host::Dim3{1, 1, 1}, {2, 1, 1}, {5, 1, 2}}) {
        p.y = y.data();
        std::ranges::fill(y, 0.0f);
        launch_in(p, each, {.blocks = blocks, .seed = 7});
        CHECK(same_values(y.data(), want.data(), static_cast<size_t>(batch * p.rows * 12), cat(each, " rows")));
      }
    }
  }
}

TEST(attention_without_a_barrier_is_wrong_with_every_seed) {
  const FloatEnvironment ours;
  // Barriers for each head: of one piece of the keys two, of three pieces seven.
  for (const auto& [keys, barriers] : {std::pair{int32_t{30}, 2u}, {int32_t{300}, 7u}}) {
    const auto x = random_floats(static_cast<size_t>(3 * keys * 16 + 500), 3, -2, 2);
    std::vector<float> want(3 * 20 * 16);
    launch_in(params_of(x, want, 20, keys, 16, 3, 128), 2, {.blocks = {1, 1, 1}});
    for (const int each : kEach) {
      for (unsigned drop = 0; drop < barriers; ++drop) {
        for (uint64_t seed = 1; seed <= 3; ++seed) {
          std::vector<float> y(want.size());
          launch_in(params_of(x, y, 20, keys, 16, 3, 128), each,
                    {.blocks = {1, 1, 1}, .seed = seed, .drop_every = barriers, .drop = drop});
          if (same(y.data(), want.data(), want.size())) {
            fail(__FILE__, __LINE__,
                 cat(each, " rows, ", keys, " keys, without barrier ", drop, " is right for ", seed));
          }
        }
      }
    }
  }
}

}  // namespace
