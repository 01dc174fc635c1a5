// Whole models and operators in bf16 and float16 on the tests' CUDA device. There the products of fragments are summed
// as the CPU does it in bf16, so where a layer's chunks are whole fragments, or one, the bits of bf16 are the CPU's; on
// a device they are not.
#include <cmath>
#include <cstdlib>

#include "base/dtype.h"
#include "operators.h"
#include "platform/isa.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

/// The tiles of AMX add up in an order of their own: here the CPU does without them, which is chosen at its first use.
[[maybe_unused]] const bool no_tiles = [] {
  const bool has = available_features(available_isas().back()).covers(IsaFeature::kAmxBf16);
  return has && setenv("INFERKIT_ISA", "avx512,-amx-bf16", 0) == 0;
}();

ModelOptions in(Device& device, Precision precision) {
  ModelOptions options = on(device);
  options.precision = precision;
  return options;
}

std::vector<float> floats_of(const std::vector<std::byte>& bytes) {
  std::vector<float> out(bytes.size() / sizeof(float));
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

/// The root of the mean square of the differences, in relation to that of what is wanted.
double error_of(const std::vector<std::byte>& got, const std::vector<std::byte>& want) {
  const auto a = floats_of(got), b = floats_of(want);
  double apart = 0, size = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    apart += std::pow(static_cast<double>(a[i]) - b[i], 2);
    size += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(apart / size);
}

/// Near float32 but not it, with rows that know nothing of their batch; and, of bf16, the bits of the CPU.
template <class Inputs>
void holds(const std::string& path, int64_t batch, double near, Inputs inputs, bool is_cpus = true) {
  if (!comparable()) return;
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  const auto in_float = Model::load(path);
  for (const Precision precision : {Precision::kBf16, Precision::kFloat16}) {
    const auto model = Model::load(path, in(*device, precision));
    const std::string what = cat(path, " in ", precision_name(precision));
    const auto given = inputs(batch, 1u);
    const auto whole = answers(*model, given), exact = answers(*in_float, given);
    const double unit = precision == Precision::kBf16 ? 1 : 1.0 / 8;
    for (size_t i = 0; i < whole.size(); ++i) {
      const double error = error_of(whole[i], exact[i]);
      if (!(error < near * unit && error > near * unit / 400)) fail(__FILE__, __LINE__, cat(what, ": error ", error));
    }
    if (precision == Precision::kBf16 && is_cpus) {
      ModelOptions here;
      here.precision = precision;
      const auto want = answers(*Model::load(path, here), given);
      for (size_t i = 0; i < want.size(); ++i) {
        const auto a = floats_of(whole[i]), b = floats_of(want[i]);
        CHECK(same_values(a.data(), b.data(), b.size(), what));
      }
    }
    for (int64_t row = 0; row < batch; ++row) {
      std::vector<Input> alone;
      for (const Input& all : given) {
        const size_t bytes = all.bytes.size() / static_cast<size_t>(batch);
        Shape one = all.shape;
        one[0] = 1;
        const auto from = all.bytes.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(row) * bytes);
        alone.push_back({all.dtype, one, {from, from + static_cast<std::ptrdiff_t>(bytes)}});
      }
      figures.seed = 50 + static_cast<uint64_t>(row);
      const auto got = answers(*model, alone);
      for (size_t i = 0; i < got.size(); ++i) {
        CHECK(std::memcmp(got[i].data(), whole[i].data() + static_cast<size_t>(row) * got[i].size(), got[i].size()) ==
              0);
      }
    }
  }
}

TEST(the_digits_example_in_halves) {
  holds(data("../../examples/digits.onnx"), 9, 0.02,
        [](int64_t batch, uint32_t seed) { return std::vector<Input>{floats({batch, 64}, seed)}; });
}

// One of its layers has chunks of twenty terms, which are rounded up to whole fragments here.
TEST(an_encoder_in_halves) {
  constexpr bool kIsCpus = false;
  holds(
      data("graph/encoder.onnx"), 3, 0.03, [](int64_t batch, uint32_t seed) { return sentences(batch, 7, seed); },
      kIsCpus);
}

TEST(a_convolutional_model_in_halves) {
  holds(data("graph/images.onnx"), 3, 0.03,
        [](int64_t batch, uint32_t seed) { return std::vector<Input>{floats({batch, 3, 9, 8}, seed)}; });
}

TEST(weights_are_kept_as_halves) {
  int64_t bytes[2];
  for (const Precision precision : {Precision::kFloat32, Precision::kBf16}) {
    Figures figures;
    const auto device = cuda_on_host::make_device(figures);
    const auto model = Model::load(data("../../examples/digits.onnx"), in(*device, precision));
    answers(*model, {floats({2, 64}, 1)});
    bytes[precision == Precision::kBf16] = static_cast<int64_t>(device->memory().weight_bytes);
  }
  CHECK(bytes[1] < bytes[0] * 6 / 10);  // biases stay as they are
}

std::vector<std::pair<DType, std::vector<std::byte>>> run_in(Precision precision, const Made& made, Device& device) {
  PackedWeights cache;
  const auto plan = compile(made.graph, made.facts, cache, {.device = &device, .precision = precision});
  Session session(plan, *BufferPool::process_default());
  std::vector<std::pair<DType, std::vector<std::byte>>> out;
  std::vector<const void*> from;
  std::vector<void*> to;
  for (const Tensor& value : made.values) from.push_back(value.data);
  for (const Port& port : plan->outputs) {
    out.emplace_back(port.dtype, std::vector<std::byte>(static_cast<size_t>(port.shape.elements()) * 4));
  }
  for (auto& [dtype, bytes] : out) to.push_back(bytes.data());
  session.run(from, to, {});
  return out;
}

// Their chunks are whole fragments, so that the CPU's are no others. Constant sides and those of the run, odd extents,
// several matrices, none.
TEST(operators_in_bf16_have_the_bits_of_the_cpu_on_the_host) {
  if (!comparable()) return;
  const std::vector<int64_t> pads{1, 1, 1, 1};
  const One ones[] = {
      {"MatMul", {{{5, 64}}, weights({64, 40})}},
      {"MatMul", {{{5, 64}}, {{64, 40}}}},
      {"MatMul", {{{5, 31}}, weights({31, 7})}},
      {"MatMul", {{{1, 1}}, weights({1, 1})}},
      {"MatMul", {{{3, 5, 33}}, {{3, 33, 9}}}},
      {"MatMul", {{{3, 5, 20}}, weights({3, 20, 9})}},
      {"MatMul", {{{2, 3, 5, 20}}, weights({3, 20, 9})}},
      {"MatMul", {{{3, 1, 5, 20}}, weights({4, 20, 6})}},
      {"MatMul", {{{20}}, weights({20, 6})}},
      {"MatMul", {{{6, 20}}, weights({20})}},
      {"MatMul", {{{300, 16}}, weights({16, 70})}},
      {"Gemm", {{{7, 64}}, weights({64, 33}), weights({33})}},
      {"Gemm", {{{7, 64}}, weights({33, 64}), weights({33})}, {{"transB", int64_t{1}}}},
      {"Gemm", {{{7, 64}}, {{33, 64}}}, {{"transB", int64_t{1}}}},
      {"Conv", {{{2, 7, 6, 5}}, weights({9, 7, 2, 2}), weights({9})}},
      {"Conv", {{{2, 16, 6, 5}}, weights({8, 16, 2, 2})}, {{"pads", pads}}},
      {"Conv", {{{2, 8, 6, 5}}, {{10, 4, 2, 2}}}, {{"group", int64_t{2}}}},
      {"Conv", {{{2, 8, 6, 5}}, weights({10, 4, 2, 2})}, {{"group", int64_t{2}}}},
  };
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  for (const One& one : ones) {
    const Made made = make(one);
    const auto want = run_in(Precision::kBf16, made, cpu_device()), got = run_in(Precision::kBf16, made, *device);
    const auto a = floats_of(got[0].second), b = floats_of(want[0].second);
    CHECK(same_values(a.data(), b.data(), b.size(),
                      cat(one.op, " ", one.inputs[0].shape.str(), " by ", one.inputs[1].shape.str())));
  }
}

TEST(sums_of_nothing_in_halves_are_zero) {
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  const Made made = make({"MatMul", {{{3, 0}}, {{0, 4}}}});
  for (const float v : floats_of(run_in(Precision::kBf16, made, *device)[0].second)) CHECK_EQ(v, 0.0f);
}

// What has no row for it stays in float32, with the bits of float32; so do filters that are few.
TEST(what_tensor_cores_do_not_do_stays_in_float32) {
  if (!comparable()) return;
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  const One ones[] = {{"Softmax", {{{3, 40}}}},
                      {"Conv", {{{2, 6, 6, 5}}, weights({6, 1, 3, 3})}, {{"group", int64_t{6}}}},
                      {"Conv", {{{2, 6, 6, 5}}, weights({4, 6, 3, 3})}},
                      {"ConvTranspose", {{{2, 6, 6, 5}}, weights({6, 7, 3, 3})}},
                      {"LayerNormalization", {{{3, 40}}, weights({40})}}};
  for (const One& one : ones) {
    const Made made = make(one);
    const auto want = run_in(Precision::kFloat32, made, cpu_device()), got = run_in(Precision::kBf16, made, *device);
    CHECK(want[0].second == got[0].second);
  }
}

TEST(a_product_that_no_row_can_run_says_why_in_every_precision) {
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  const Made made = make({"Gemm", {{{7, 64}}, weights({64, 33})}, {{"alpha", 0.5f}}});
  for (const Precision precision : {Precision::kFloat32, Precision::kBf16, Precision::kFloat16}) {
    try {
      run_in(precision, made, *device);
      CHECK(false);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kUnsupportedOp);
      CHECK(std::string(error.what()).find("its lowering for the device 'cuda' cannot run it: alpha is not 1") !=
            std::string::npos);
    }
  }
}

}  // namespace
