// Chains of elementwise operators on the tests' CUDA device: one kernel, with the bits of the CPU and of the operators
// by themselves.
#include "graph/passes/pattern.h"
#include "operators.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

struct Chain {
  Texts ops;
  Ints reads;  // two for each: -1 a number, 0 the input, i what operator i gives
  Floats numbers;
};

One one_of(const Chain& chain, const Shape& shape, bool wild) {
  return {.op = "Chain",
          .inputs = {{shape}},
          .attributes = {{"ops", chain.ops}, {"reads", chain.reads}, {"numbers", FloatList(chain.numbers)}},
          .version = 1,
          .wild = wild,
          .domain = std::string(kInternalDomain)};
}

const std::pair<const char*, Chain> kChains[] = {
    {"two sums", {{"Add", "Add"}, {0, -1, 1, -1}, {0, 1.5f, 0, -2}}},
    {"numbers first", {{"Sub", "Div"}, {-1, 0, -1, 1}, {1, 0, 3, 0}}},
    {"a hard swish", {{"Add", "Clip", "Mul", "Div"}, {0, -1, 1, -1, 0, 2, 3, -1}, {0, 3, 0, 6, 0, 0, 0, 6}}},
    {"curves", {{"Sigmoid", "Tanh", "Relu"}, {0, -1, 1, -1, 2, -1}, {0, 0, 0, 0, 0, 0}}},
    {"a value with itself", {{"Mul", "Mul", "Sub"}, {0, 0, 1, 1, 2, 1}, {0, 0, 0, 0, 0, 0}}},
    {"six values at once",
     {{"Mul", "Mul", "Mul", "Mul", "Mul", "Mul", "Add", "Sub", "Div", "Add", "Mul"},
      {0, -1, 0, -1, 0, -1, 0, -1, 0, -1, 0, -1, 1, 2, 7, 3, 8, 4, 9, 5, 10, 6},
      {0, 2, 0, 3, 0, 5, 0, 7, 0, 11, 0, 13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}}},
    {"as many as there may be",
     {Texts(16, "Add"),
      {0, -1, 1, -1, 2,  -1, 3,  -1, 4,  -1, 5,  -1, 6,  -1, 7,  -1,
       8, -1, 9, -1, 10, -1, 11, -1, 12, -1, 13, -1, 14, -1, 15, -1},
      Floats(32, 0.25f)}},
};

TEST(a_chain_has_the_bits_of_the_cpu) {
  for (const auto& [what, chain] : kChains) {
    for (const bool wild : {false, true}) {
      for (const Shape& shape : {Shape{3, 5}, Shape{1}, Shape{2, 700}}) {
        same(one_of(chain, shape, wild), cat(what, " ", shape.str(), wild ? " wild" : ""));
      }
    }
  }
}

TEST(a_chain_gives_what_its_operators_give) {
  // (x + 3) clipped to [0, 6], times x, over 6: numbers whose steps are exact.
  const Chain swish = kChains[2].second;
  One one = one_of(swish, {6}, false);
  one.inputs[0].floats = {-4, -3, 0, 1, 3, 6};
  const Made made = make(one);
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  const auto got = run(made, *device, 1);
  const auto* y = reinterpret_cast<const float*>(got.at(0).second.data());
  const std::vector<float> want{0, 0, 0, 4.0f / 6, 3, 6};
  for (size_t i = 0; i < want.size(); ++i) CHECK_EQ(y[i], want[i]);
  CHECK_EQ(figures.launches.load(), int64_t{2});  // the chain, and what writes the words of the answer
}

}  // namespace
