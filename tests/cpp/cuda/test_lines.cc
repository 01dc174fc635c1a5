// What goes along an axis in order, and bounds that a run brings, on the tests' CUDA device: as on the CPU, to the bit.
#include <limits>

#include "operators.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

Given whole(const Shape& shape, DType dtype, Ints values) {
  return {.shape = shape, .integers = std::move(values), .whole = dtype};
}
Given number(float v) { return {.shape = {}, .floats = {v}}; }

TEST(running_sums_and_products_are_those_of_the_cpu) {
  for (const char* op : {"CumSum", "CumProd"}) {
    const int version = std::string(op) == "CumSum" ? 17 : 26;
    for (const int64_t axis : {0, 1, -1}) {
      for (const int64_t flags : {0, 1, 2, 3}) {
        const std::map<std::string, Attribute, std::less<>> attributes{{"exclusive", flags & 1},
                                                                       {"reverse", flags >> 1}};
        const std::string what = cat("axis ", axis, ", flags ", flags);
        same({.op = op, .inputs = {{{3, 17, 5}}, constant(Ints{axis})}, .attributes = attributes, .version = version},
             what);
        same({.op = op,
              .inputs = {{{2, 3, 4}}, constant(Ints{axis})},
              .attributes = attributes,
              .version = version,
              .wild = true},
             what);
        for (const DType dtype : {DType::kI32, DType::kI64}) {
          same({.op = op,
                .inputs = {whole({2, 2, 3}, dtype, {1 << 30, -7, 1 << 30, 3, 5, 1 << 30, 2, 0, 9, -1, 1 << 29, 8}),
                           constant(Ints{axis})},
                .attributes = attributes,
                .version = version},
               what);
        }
      }
    }
    same({.op = op, .inputs = {{{4, 1}}, constant(Ints{1})}, .version = version}, "one element");
  }
}

TEST(scattered_elements_are_those_of_the_cpu) {
  // Indices that repeat, and some from the end; fewer lines than the data has.
  const Ints indices = {0, 2, -1, 2, 2, -3, 1, 1, 1, 0, -5, 4};
  for (const char* reduction : {"none", "add", "mul"}) {
    const std::string how = reduction;
    for (const DType dtype : {DType::kI32, DType::kI64}) {
      same({.op = "ScatterElements",
            .inputs = {{{3, 5, 2}}, whole({2, 3, 2}, dtype, indices), {{2, 3, 2}}},
            .attributes = {{"axis", int64_t{1}}, {"reduction", how}},
            .version = 18},
           cat(how, ", axis 1"));
    }
    same({.op = "ScatterElements",
          .inputs = {{{5, 7}}, whole({4, 3}, DType::kI64, indices), {{4, 3}}},
          .attributes = {{"axis", int64_t{0}}, {"reduction", how}},
          .version = 18,
          .wild = true},
         cat(how, ", axis 0"));
    same({.op = "ScatterElements",
          .inputs = {whole({6}, DType::kI64, {1, 2, 3, 4, 5, 6}), whole({3}, DType::kI64, {5, 5, -6}),
                     whole({3}, DType::kI64, {10, 20, 30})},
          .attributes = {{"reduction", how}},
          .version = 18},
         cat(how, ", int64"));
  }
  same({.op = "ScatterElements",
        .inputs = {whole({4}, DType::kBool, {1, 0, 0, 1}),
                   whole({2}, DType::kI32, {0, 2}),
                   {.shape = {2}, .integers = {0, 1}, .whole = DType::kBool}},
        .version = 13},
       "bools");
}

TEST(an_update_out_of_range_is_named_with_its_step) {
  cuda_on_host::Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  for (const int64_t index : {3, -4}) {
    try {
      run(make({.op = "ScatterElements", .inputs = {{{3}}, whole({2}, DType::kI64, {0, index}), {{2}}}}), *device, 1);
      CHECK(false);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kInference);
      CHECK(std::string(error.what()).find("out of range") != std::string::npos);
    }
  }
}

TEST(one_hot_is_that_of_the_cpu) {
  const Given depth = constant(Ints{4});
  const Given on_off = {.shape = {2}, .floats = {-1.5f, 2.5f}};
  for (const int64_t axis : {0, 1, -1}) {
    const std::map<std::string, Attribute, std::less<>> attributes{{"axis", axis}};
    for (const DType dtype : {DType::kI32, DType::kI64}) {
      same({.op = "OneHot",
            .inputs = {whole({2, 4}, dtype, {0, 3, -1, -4, 4, -5, 2, 100}), depth, on_off},
            .attributes = attributes},
           cat("axis ", axis));
    }
    const Given floats = {.shape = {2, 4}, .floats = {0.9f, 3.9f, -0.5f, -4.0f, -4.5f, 4, 1e30f, NAN}};
    same({.op = "OneHot", .inputs = {floats, depth, on_off}, .attributes = attributes}, cat("floats, axis ", axis));
  }
  same({.op = "OneHot", .inputs = {whole({3}, DType::kI64, {2, 0, 9}), depth, whole({2}, DType::kI64, {7, -7})}},
       "of int64");
}

TEST(responses_are_scaled_by_their_neighbours_as_on_the_cpu) {
  for (const int64_t size : {1, 2, 3, 5, 64, 1000}) {
    for (const Shape& shape : {Shape{2, 96, 3, 3}, Shape{1, 3, 7}, Shape{3, 5}}) {
      same({.op = "LRN",
            .inputs = {{shape}},
            .attributes = {{"size", size}, {"alpha", 0.75f}, {"beta", 0.75f}, {"bias", 1.5f}}},
           cat("size ", size, ", ", shape.str()));
    }
  }
  same({.op = "LRN", .inputs = {{{2, 40, 9}}}, .attributes = {{"size", int64_t{5}}}, .wild = true}, "wild");
}

TEST(bounds_of_the_run_cut_as_on_the_cpu) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const float low : {-0.5f, 2.0f, -kInf, NAN}) {
    for (const float high : {0.75f, -1.0f, kInf, NAN}) {
      same({.op = "Clip", .inputs = {{{7, 300}}, number(low), number(high)}, .wild = true}, cat(low, " to ", high));
    }
    same({.op = "Clip", .inputs = {{{7, 300}}, number(low)}, .wild = true}, cat("from ", low));
    same({.op = "Clip", .inputs = {{{7, 300}}, no_input(), number(low)}, .wild = true}, cat("to ", low));
  }
  same({.op = "Clip", .inputs = {{{7, 300}}, constant(Floats{NAN}), no_input()}, .wild = true}, "a constant NaN");
  for (const DType dtype : {DType::kI32, DType::kI64}) {
    const Given x = whole({6}, dtype, {-9, -1, 0, 3, 8, 1 << 30});
    same({.op = "Clip", .inputs = {x, whole({}, dtype, {-1}), whole({}, dtype, {5})}}, "integers");
    same({.op = "Clip", .inputs = {x, whole({}, dtype, {6}), whole({}, dtype, {5})}}, "the most wins");
    same({.op = "Clip", .inputs = {x, no_input(), whole({}, dtype, {5})}}, "one bound");
  }
}

}  // namespace
