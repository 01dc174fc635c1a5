// One kernel for a whole MLP: the bits of its layers one by one on the CPU, and where plans have it.
#include <algorithm>
#include <bit>
#include <cmath>

#include "../engine/graphs.h"
#include "backend_on_host.h"
#include "kernels/cpu/gemm/gemm.h"
#include "models.h"
#include "support.h"

using namespace inferkit;
using namespace inferkit::testing;
namespace cuda = inferkit::kernels::cuda;
using kernels::Unary;

namespace {

struct Layer {
  int64_t n;
  Unary act = Unary::kRelu;
  bool bias = true;
};
struct Mlp {
  int64_t k;
  std::vector<Layer> layers;
};

constexpr float kAlpha = 0.25f, kBeta = 0.5f;

struct Values {
  std::vector<float> x;
  std::vector<std::vector<float>> w, bias;  // w: [k][n]
};
Values values_of(const Mlp& mlp, int64_t m, bool wild = false) {
  const auto draw = [&](int64_t n, uint32_t seed, float scale) {
    auto out = wild ? wild_floats(static_cast<size_t>(n), seed) : random_floats(static_cast<size_t>(n), seed);
    if (!wild) std::ranges::transform(out, out.begin(), [&](float v) { return v * scale; });
    return out;
  };
  Values out{draw(m * mlp.k, 1, 1), {}, {}};
  int64_t k = mlp.k;
  for (size_t i = 0; i < mlp.layers.size(); ++i) {
    const int64_t n = mlp.layers[i].n;
    out.w.push_back(draw(k * n, 10 + static_cast<uint32_t>(i), 1 / std::sqrt(static_cast<float>(k))));
    out.bias.push_back(draw(n, 20 + static_cast<uint32_t>(i), 1));
    k = n;
  }
  return out;
}

std::vector<float> on_cpu(const Mlp& mlp, int64_t m, const Values& v, Isa isa) {
  const auto& table = kernels::gemm_kernels(isa);
  std::vector<float> x = v.x;
  int64_t k = mlp.k;
  for (size_t i = 0; i < mlp.layers.size(); ++i) {
    const Layer& layer = mlp.layers[i];
    std::vector<float> packed(kernels::packed_b_elements(k, layer.n)), c(static_cast<size_t>(m * layer.n));
    table.pack_b(v.w[i].data(), layer.n, k, layer.n, packed.data());
    kernels::GemmArgs g;
    g.m = m;
    g.n = g.ldc = layer.n;
    g.k = g.lda = k;
    g.a = x.data();
    kernels::use_packed_b(g, packed.data());
    g.c = c.data();
    if (layer.bias) {
      g.bias = v.bias[i].data();
      g.bias_kind = kernels::BiasKind::kPerColumn;
    }
    g.act = layer.act;
    g.act_alpha = kAlpha;
    g.act_beta = kBeta;
    table.gemm(g);
    x = std::move(c);
    k = layer.n;
  }
  return x;
}

/// A kernel with the rows and the threads of its blocks.
struct Way {
  cuda::Kernel kernel;
  int rows;
  unsigned threads;
};
constexpr Way kWays[] = {
    {cuda::Kernel::mlp_rows_1, 1, 1024}, {cuda::Kernel::mlp_rows_4, 4, 512}, {cuda::Kernel::mlp_rows_8, 8, 512}};

/// The parameters of a launch, and what they point to.
struct Packed {
  std::vector<std::vector<float>> w;  // of each layer
  cuda::MlpParams p{};
  size_t floats = 0;  // of shared memory
};
Packed pack(const Mlp& mlp, int64_t m, const Values& v, int rows) {
  Packed out;
  cuda::MlpParams& p = out.p;
  p.m = m;
  p.x = v.x.data();
  p.count = static_cast<int32_t>(mlp.layers.size());
  auto k = static_cast<int32_t>(mlp.k);
  int inputs = 0, parts = 0;
  for (size_t i = 0; i < mlp.layers.size(); ++i) {
    cuda::MlpLayer& l = p.layers[i];
    l.k = k;
    l.n = static_cast<int32_t>(mlp.layers[i].n);
    l.chunk = static_cast<int32_t>(kernels::sum_chunk(l.k, l.n));
    l.bias = mlp.layers[i].bias ? v.bias[i].data() : nullptr;
    l.act = mlp.layers[i].act;
    l.alpha = kAlpha;
    l.beta = kBeta;
    cuda::cut_layer(l);
    auto& w = out.w.emplace_back();
    for (int32_t r = 0; r < l.k; ++r) {
      for (int32_t c = 0; c < l.wide; ++c) w.push_back(c < l.n ? v.w[i][static_cast<size_t>(r * l.n + c)] : NAN);
    }
    l.w = w.data();
    inputs = std::max(inputs, rows * l.chunks * l.room);
    parts = std::max(parts, rows * l.chunks * l.wide);
    k = l.n;
  }
  p.parts = cuda::kMlpHead + inputs;
  out.floats = static_cast<size_t>(p.parts + parts);
  return out;
}
/// `grid` has what else the emulator is to do.
void run(const Way& way, const cuda::MlpParams& p, size_t floats, cuda_on_host::Grid grid = {},
         unsigned most_blocks = 1 << 30) {
  grid.blocks.x = std::min(most_blocks, static_cast<unsigned>((p.m + way.rows - 1) / way.rows));
  grid.threads = {way.threads};
  grid.shared_bytes = floats * sizeof(float);
  cuda_on_host::launch(way.kernel, grid, &p);
}
std::vector<float> made(const Way& way, const Mlp& mlp, int64_t m, const Values& v, const cuda_on_host::Grid& grid,
                        unsigned most_blocks = 1 << 30) {
  Packed packed = pack(mlp, m, v, way.rows);
  std::vector<float> y(static_cast<size_t>(m * mlp.layers.back().n), NAN);
  packed.p.y = y.data();
  run(way, packed.p, packed.floats, grid, most_blocks);
  return y;
}
std::string text(const Mlp& mlp, int64_t m, const Way& way) {
  std::string out = cat(mlp.k);
  for (const Layer& layer : mlp.layers) out += cat("-", layer.n);
  return cat(out, ", ", m, " rows, ", way.rows, " in a block");
}

const Mlp kMlps[] = {
    {64, {{256}, {256}, {10, Unary::kIdentity}}},
    {4, {{16, Unary::kTanh}, {3, Unary::kIdentity}}},
    {1, {{1}, {1, Unary::kSigmoid, false}}},
    {33, {{70, Unary::kGelu}, {31, Unary::kElu, false}, {129}, {5, Unary::kClip}}},
    {130, {{40, Unary::kSoftplus, false}, {1030, Unary::kLeakyRelu}, {7, Unary::kIdentity, false}}},
    {1100, {{9}, {600, Unary::kSelu}, {1, Unary::kIdentity}}},  // five chunks, the last of them short
};

TEST(an_mlp_in_one_kernel_has_the_bits_of_its_layers) {
  const FloatEnvironment ours;
  for (const Mlp& mlp : kMlps) {
    for (const int64_t m : {1, 11}) {
      const Values v = values_of(mlp, m);
      for (const Way& way : kWays) {
        for (const uint64_t seed : kSeeds) {
          const auto got = made(way, mlp, m, v, {.seed = seed});
          for (const Isa isa : fusing_isas()) {
            const auto want = on_cpu(mlp, m, v, isa);
            if (!same_values(got.data(), want.data(), want.size(),
                             cat(text(mlp, m, way), ", ", isa_name(isa), ", seed ", seed)))
              return;
          }
        }
      }
    }
  }
}

TEST(an_mlp_of_every_activation_and_of_values_of_all_sizes_has_the_bits_of_its_layers) {
  const FloatEnvironment ours;
  const Unary all[] = {Unary::kRelu,     Unary::kLeakyRelu, Unary::kSigmoid,     Unary::kTanh,
                       Unary::kGelu,     Unary::kGeluTanh,  Unary::kSilu,        Unary::kElu,
                       Unary::kSelu,     Unary::kCelu,      Unary::kHardSigmoid, Unary::kHardSwish,
                       Unary::kSoftplus, Unary::kSoftsign,  Unary::kMish,        Unary::kClip};
  for (const Unary act : all) {
    const Mlp mlp{35, {{40, act}, {6, act}}};
    for (const bool wild : {false, true}) {
      const Values v = values_of(mlp, 5, wild);
      const auto got = made(kWays[1], mlp, 5, v, {});
      for (const Isa isa : fusing_isas()) {
        const auto want = on_cpu(mlp, 5, v, isa);
        if (!same_values(got.data(), want.data(), want.size(), cat("activation ", static_cast<int>(act)))) return;
      }
    }
  }
}

TEST(few_blocks_of_an_mlp_go_on_to_the_last_row) {
  const FloatEnvironment ours;
  const Mlp& mlp = kMlps[1];
  const Values v = values_of(mlp, 37);
  for (const Way& way : kWays) {
    const auto want = made(way, mlp, 37, v, {});
    const auto got = made(way, mlp, 37, v, {.seed = 5}, 2);
    CHECK(same_values(got.data(), want.data(), want.size(), text(mlp, 37, way)));
  }
}

TEST(an_mlp_writes_its_answers_as_words_of_the_run) {
  const FloatEnvironment ours;
  const Mlp& mlp = kMlps[1];
  constexpr int64_t kRows = 9, kStep = 32;
  const Values v = values_of(mlp, kRows);
  for (const Way& way : kWays) {
    const auto want = made(way, mlp, kRows, v, {});
    for (const int32_t step : {0, static_cast<int32_t>(kStep)}) {
      Packed packed = pack(mlp, kRows, v, way.rows);
      std::vector<uint32_t> run_number(kRows * kStep, 0xfffffff0u);
      std::vector<uint64_t> words(want.size() + 1, 7);
      packed.p.words = words.data();
      packed.p.run = run_number.data();
      packed.p.run_step = step;
      run(way, packed.p, packed.floats);
      for (size_t i = 0; i < want.size(); ++i) {
        CHECK_EQ(words[i] >> 32, uint64_t{0xfffffff0u});
        CHECK(same(std::bit_cast<float>(static_cast<uint32_t>(words[i])), want[i]));
      }
      CHECK_EQ(words.back(), uint64_t{7});
    }
  }
}

// Barriers stand before shared memory is written anew and before it is read.
TEST(an_mlp_without_every_other_barrier_is_wrong_with_every_seed) {
  const FloatEnvironment ours;
  const Mlp mlp{64, {{80}, {70}, {10, Unary::kIdentity}}};
  const Values v = values_of(mlp, 8);
  for (const Way& way : kWays) {
    const auto want = made(way, mlp, 8, v, {});
    for (const unsigned drop : {0u, 1u}) {
      for (uint64_t seed = 1; seed <= 5; ++seed) {
        const auto got = made(way, mlp, 8, v, {.seed = seed, .drop_every = 2, .drop = drop});
        if (same(got.data(), want.data(), want.size())) {
          fail(__FILE__, __LINE__, cat(text(mlp, 8, way), " without barrier ", drop, " is right for seed ", seed));
        }
      }
    }
  }
}

// ---- In plans -------------------------------------------------------------------------------------------------------

/// Linear layers with ReLU between them, whose weights lie [k][n] and [n][k] in turns; every third has no bias.
ModelFile layers(const std::vector<int64_t>& sizes) {
  ModelFile file;
  Graph& g = file.graph;
  ValueId x = g.add_value("x");
  g.values[0].dtype = DType::kF32;
  g.values[0].shape = Shape{Shape::kFree, sizes[0]};
  g.inputs = {x};
  for (size_t i = 0; i + 1 < sizes.size(); ++i) {
    const int64_t k = sizes[i], n = sizes[i + 1];
    const auto seed = static_cast<uint32_t>(i);
    const auto weights = random_floats(static_cast<size_t>(k * n), 30 + seed, -0.3f, 0.3f);
    const ValueId w = g.add_value(cat("w", i)), y = g.add_value(cat("y", i));
    g.constants.emplace(w, make_tensor<float>(i % 2 == 1 ? Shape{n, k} : Shape{k, n}, weights));
    std::vector<ValueId> inputs{x, w};
    if (i % 3 != 2) {
      inputs.push_back(g.add_value(cat("b", i)));
      g.constants.emplace(inputs.back(), make_tensor<float>({n}, random_floats(static_cast<size_t>(n), 40 + seed)));
    }
    Node gemm = make_node("Gemm", inputs, {y});
    gemm.name = cat("fc", i);
    gemm.attributes["transB"] = static_cast<int64_t>(i % 2);
    g.nodes.push_back(gemm);
    x = y;
    if (i + 2 == sizes.size()) break;
    x = g.add_value(cat("r", i));
    g.nodes.push_back(make_node("Relu", {y}, {x}));
  }
  g.outputs = {x};
  file.opsets[""] = 17;
  return file;
}

std::vector<std::string> steps_of(Model& model, const Shape& shape) {
  std::vector<std::string> out;
  for (const ProfiledNode& node : model.explain(std::vector<Shape>{shape}).nodes) out.push_back(node.note.op);
  return out;
}
const std::vector<std::string> kOne{"inferkit.Mlp"};

TEST(a_small_mlp_is_one_step_with_the_bits_of_the_cpu) {
  if (!comparable()) return;
  cuda_on_host::Figures figures;
  const Compared compared(figures);
  for (const std::vector<int64_t>& sizes :
       {std::vector<int64_t>{64, 40, 33, 10}, {4, 16, 3}, {32, 7, 130, 5, 8, 1}, {7, 5, 5, 5, 5, 5, 5, 5, 5}}) {
    Model there(layers(sizes), on(compared.device()), ""), here(layers(sizes), {}, "");
    CHECK(steps_of(there, {3, sizes[0]}) == kOne);
    const auto inputs = [&](int64_t batch, uint32_t seed) {
      return std::vector<Input>{floats({batch, sizes[0]}, seed)};
    };
    if (!same_answers(there, here, cat("an MLP from ", sizes[0]), {1, 2, 64, 65, 70, 270}, inputs,
                      [&](uint64_t seed) { figures.seed = 10 * seed; }))
      return;
    CHECK_EQ(answers(there, inputs(0, 1)).at(0).size(), size_t{0});
  }
}

TEST(the_step_of_a_small_mlp_stands_for_its_nodes) {
  cuda_on_host::Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  Model model(layers({8, 16, 16, 3}), on(*device), "");
  const Explained found = model.explain(std::vector<Shape>{{5, 8}});
  CHECK_EQ(found.nodes.size(), size_t{1});
  const NodeNote& note = found.nodes[0].note;
  std::string stands_for;
  for (const NodeOrigin& origin : note.origins) stands_for += cat(origin.op, " ", origin.name, ", ");
  CHECK_EQ(stands_for, "Gemm fc0, Relu , Gemm fc1, Relu , Gemm fc2, ");
  CHECK_EQ(note.name, "fc2");
  CHECK_EQ(note.steps, size_t{1});
  CHECK_EQ(note.kernels.size(), size_t{1});
  CHECK_EQ(note.inputs.size(), size_t{1 + 3 + 2});
  CHECK_EQ(note.outputs.size(), size_t{1});
  CHECK_EQ(found.arena_bytes, size_t{0});  // nothing lies between
}

// What a run finds where the host has put it is copied by nobody.
TEST(a_small_mlp_reads_its_input_in_pinned_memory) {
  if (!comparable()) return;
  cuda_on_host::Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  Model there(layers({32, 16, 3}), on(*device), ""), here(layers({32, 16, 3}), {}, "");
  const auto inputs = [](int64_t batch, uint32_t seed) { return std::vector<Input>{floats({batch, 32}, seed)}; };
  const auto seed = [&](uint64_t number) { figures.seed = number; };
  if (!same_answers(there, here, "in place", {1, 2, 64, 65, 128}, inputs, seed)) return;
  CHECK_EQ(figures.copies, 0);
  CHECK_EQ(figures.waits, 0);
  CHECK_EQ(device->activity().in_bytes, std::size(kSeeds) * (1 + 2 + 64 + 65 + 128) * 32 * sizeof(float));
  if (!same_answers(there, here, "more than 16 KiB", {129}, inputs, seed)) return;
  CHECK_EQ(figures.copies, static_cast<int64_t>(std::size(kSeeds)));
  // Rows that several blocks would read on one line.
  Model narrow(layers({31, 16, 3}), on(*device), "");
  figures.copies = 0;
  answers(narrow, {floats({1, 31}, 1)});
  CHECK_EQ(figures.copies, 0);
  answers(narrow, {floats({2, 31}, 1)});
  CHECK_EQ(figures.copies, 1);
}

TEST(words_of_an_earlier_run_are_no_answer_of_an_mlp) {
  if (!comparable()) return;
  cuda_on_host::Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  Model there(layers({32, 16, 3}), on(*device), ""), here(layers({32, 16, 3}), {}, "");
  const std::vector<Input> one{floats({9, 32}, 1)}, other{floats({9, 32}, 2)};
  CHECK(answers(there, one) == answers(here, one));
  figures.loses = true;
  try {
    answers(there, other);
    CHECK(false);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kDevice);
  }
  CHECK(answers(there, other) == answers(here, other));
}

TEST(layers_stay_by_themselves_where_one_kernel_cannot_or_does_not_pay) {
  if (!comparable()) return;
  cuda_on_host::Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  const auto steps = [&](const ModelFile& file, const Shape& shape) {
    Model there(file, on(*device), "");
    return steps_of(there, shape);
  };
  const std::vector<std::string> two(2, "inferkit.Linear");
  const ModelFile small = layers({8, 16, 3});
  CHECK(steps(small, {1024, 8}) == kOne);
  CHECK(steps(small, {1025, 8}) == two);  // rows
  CHECK(steps(layers({256, 256, 256}), {1, 256}) == kOne);
  CHECK(steps(layers({256, 257, 256}), {1, 256}) == two);  // weights
  CHECK(steps(layers({1, 8192, 1}), {1, 1}) == kOne);
  CHECK(steps(layers({1, 8192, 1}), {300, 1}) == two);  // shared memory
  const std::vector<int64_t> nine(10, 5);
  CHECK((steps(layers(nine), {1, 5}) == std::vector<std::string>{"inferkit.Mlp", "inferkit.Linear"}));
  // As many as go together, and then the others.
  CHECK((steps(layers({8, 8, 8, 600, 600, 8, 8}), {1, 8}) ==
         std::vector<std::string>{"inferkit.Mlp", "inferkit.Linear", "inferkit.Mlp"}));
  // What lies between is an output, too, or somebody else reads it.
  ModelFile shown = layers({8, 16, 3});
  shown.graph.outputs.insert(shown.graph.outputs.begin(), shown.graph.nodes[1].outputs[0]);
  CHECK(steps(shown, {4, 8}) == two);
  ModelFile read = layers({8, 16, 3});
  const ValueId more = read.graph.add_value("more");
  read.graph.nodes.push_back(make_node("Tanh", {read.graph.nodes[1].outputs[0]}, {more}));
  read.graph.outputs.push_back(more);
  CHECK((steps(read, {4, 8}) == std::vector<std::string>{"inferkit.Linear", "inferkit.Linear", "Tanh"}));
  for (const ModelFile& file : {shown, read}) {
    Model there(file, on(*device), ""), here(file, {}, "");
    const std::vector<Input> in{floats({4, 8}, 3)};
    CHECK(answers(there, in) == answers(here, in));
  }
  // The CPU has no such step, and a model in bf16 computes in it.
  Model here(small, {}, "");
  CHECK(steps_of(here, {4, 8}) == two);
  ModelOptions halves = on(*device);
  halves.precision = Precision::kBf16;
  Model in_bf16(small, halves, "");
  CHECK(steps_of(in_bf16, {4, 8}) == two);
}

TEST(a_small_mlp_behind_a_step_of_the_cpu_gets_what_that_made) {
  if (!comparable()) return;
  cuda_on_host::Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  ModelFile file = layers({8, 16, 3});
  const ValueId shrunk = file.graph.add_value("shrunk"), again = file.graph.add_value("again");
  file.graph.nodes.insert(file.graph.nodes.begin(), make_node("Shrink", {file.graph.inputs[0]}, {shrunk}));
  file.graph.nodes[1].inputs[0] = shrunk;
  file.graph.nodes.push_back(make_node("Shrink", {file.graph.outputs[0]}, {again}));
  file.graph.outputs[0] = again;
  ModelOptions options = on(*device);
  options.fallback = true;
  Model there(file, options, ""), here(file, {}, "");
  const auto found = steps_of(there, {5, 8});
  CHECK_EQ(std::ranges::count(found, "inferkit.Mlp"), 1);
  for (const int64_t batch : {1, 5, 0}) {
    const std::vector<Input> in{floats({batch, 8}, 7)};
    CHECK(answers(there, in) == answers(here, in));
  }
}

}  // namespace
