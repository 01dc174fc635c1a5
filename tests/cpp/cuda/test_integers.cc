// Integers, bools and indices on the tests' CUDA device, one operator at a time, as on the CPU.
#include "operators.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

constexpr DType kWhole[] = {DType::kI32, DType::kI64};

Ints edges(DType dtype) {
  const bool wide = dtype == DType::kI64;
  const int64_t most = wide ? INT64_MAX : INT32_MAX, least = wide ? INT64_MIN : INT32_MIN;
  return {most, least, -1, 0, 1, 2, -2, most - 1, least + 1, 7, -7, 3, -3, 1000003, -1000003};
}
Given whole(const Shape& shape, DType dtype, Ints values) {
  return {.shape = shape, .integers = std::move(values), .whole = dtype};
}
/// Every value beside every other one.
std::vector<Given> pairs(DType dtype, bool divides) {
  Ints rows = edges(dtype), columns = edges(dtype);
  if (divides) std::erase(columns, 0);
  const Shape tall{static_cast<int64_t>(rows.size()), 1}, wide{1, static_cast<int64_t>(columns.size())};
  return {whole(tall, dtype, std::move(rows)), whole(wide, dtype, std::move(columns))};
}

TEST(arithmetic_of_integers_wraps_as_on_the_cpu) {
  for (const DType dtype : kWhole) {
    for (const char* op : {"Add", "Sub", "Mul", "Div", "Min", "Max", "PRelu", "Mod"}) {
      const std::string name = op;
      One one{.op = op, .inputs = pairs(dtype, name == "Div" || name == "Mod"), .version = 18};
      if (name == "PRelu") {  // the slope may not be larger
        one.inputs = {whole({15}, dtype, edges(dtype)), whole({1}, dtype, {-3})};
      }
      same(one, std::string(dtype_name(dtype)));
      if (name != "Mod") continue;
      one.attributes["fmod"] = int64_t{1};
      same(one, cat(dtype_name(dtype), ", with the sign of the first"));
    }
    for (const char* op : {"BitwiseAnd", "BitwiseOr", "BitwiseXor"}) {
      same({.op = op, .inputs = pairs(dtype, false), .version = 18}, std::string(dtype_name(dtype)));
    }
    for (const char* op : {"Neg", "Abs", "Sign", "Relu", "BitwiseNot"}) {
      same({.op = op, .inputs = {whole({15}, dtype, edges(dtype))}, .version = 18}, std::string(dtype_name(dtype)));
    }
  }
}

TEST(arithmetic_of_integers_gives_known_answers) {
  const auto answer = [](const One& one) {
    cuda_on_host::Figures figures;
    const auto device = cuda_on_host::make_device(figures);
    const auto out = run(make(one), *device, 1);
    Ints values(out[0].second.size() / sizeof(int64_t));
    std::memcpy(values.data(), out[0].second.data(), out[0].second.size());
    return values;
  };
  const Given a = whole({4}, DType::kI64, {7, -7, INT64_MIN, 5}), b = whole({4}, DType::kI64, {2, 2, -1, -3});
  CHECK((answer({.op = "Div", .inputs = {a, b}}) == Ints{3, -3, INT64_MIN, -1}));
  CHECK((answer({.op = "Mod", .inputs = {a, b}}) == Ints{1, 1, 0, -1}));
  CHECK((answer({.op = "Mod", .inputs = {a, b}, .attributes = {{"fmod", int64_t{1}}}}) == Ints{1, -1, 0, 2}));
  CHECK((answer({.op = "ReduceSum", .inputs = {a}, .attributes = {{"keepdims", int64_t{0}}}, .version = 11}) ==
         Ints{INT64_MIN + 5}));
  CHECK((answer({.op = "ArgMax", .inputs = {a}}) == Ints{0}));
  CHECK((answer({.op = "ArgMin", .inputs = {a}}) == Ints{2}));
}

TEST(a_division_by_zero_is_an_error_of_its_run) {
  cuda_on_host::Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  for (const char* op : {"Div", "Mod"}) {
    const Made made = make({.op = op, .inputs = {whole({2}, DType::kI32, {4, 5}), whole({2}, DType::kI32, {2, 0})}});
    try {
      run(made, *device, 1);
      CHECK(false);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kInference);
      CHECK(std::string(error.what()).find("integer division by zero") != std::string::npos);
    }
  }
  same({.op = "Div", .inputs = {whole({2}, DType::kI32, {4, 5}), whole({2}, DType::kI32, {2, 1})}}, "after it");
}

TEST(logic_is_that_of_the_cpu) {
  const Given a = whole({4, 1}, DType::kBool, {0, 1, 1, 0}), b = whole({3}, DType::kBool, {1, 0, 1});
  for (const char* op : {"And", "Or", "Xor"}) same({.op = op, .inputs = {a, b}}, "broadcast");
  same({.op = "Not", .inputs = {a}}, "alone");
}

TEST(reductions_of_integers_are_those_of_the_cpu) {
  for (const DType dtype : kWhole) {
    for (const char* op : {"ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceSumSquare"}) {
      Ints values(2 * 3 * 67);
      for (size_t i = 0; i < values.size(); ++i) values[i] = edges(dtype)[i * 7919 % 15] ^ static_cast<int64_t>(i);
      if (dtype == DType::kI32) {
        for (int64_t& v : values) v = static_cast<int32_t>(v);
      }
      for (const Ints& axes : {Ints{2}, Ints{0}, Ints{1}, Ints{0, 2}, Ints{}}) {
        One one{.op = op, .inputs = {whole({2, 3, 67}, dtype, values)}, .version = 12};
        if (!axes.empty()) one.attributes["axes"] = axes;
        same(one, cat(dtype_name(dtype), ", ", axes.size(), " axes"));
      }
    }
  }
  same({.op = "ReduceMean",
        .inputs = {whole({3, 4}, DType::kI32, {INT32_MAX, INT32_MAX, INT32_MAX, 5, -7, -8, -9, -11, 1, 2, 2, 2})},
        .attributes = {{"axes", Ints{1}}},
        .version = 12},
       "means");
}

TEST(the_place_of_the_greatest_is_that_of_the_cpu) {
  for (const char* op : {"ArgMax", "ArgMin"}) {
    for (const int64_t last : {0, 1}) {
      for (const int64_t axis : {0, 1, 2}) {
        for (const int64_t keep : {0, 1}) {
          One one{.op = op,
                  .inputs = {{{3, 70, 4}}},
                  .attributes = {{"axis", axis}, {"keepdims", keep}, {"select_last_index", last}},
                  .wild = true};
          const std::string what = cat("axis ", axis, last ? ", last" : "");
          same(one, what);
          one.wild = false;
          same(one, cat(what, ", plain"));
          for (const DType dtype : kWhole) {
            Ints values(3 * 70 * 4);
            for (size_t i = 0; i < values.size(); ++i) values[i] = edges(dtype)[i * i % 15];
            one.inputs = {whole({3, 70, 4}, dtype, std::move(values))};
            same(one, cat(what, ", ", dtype_name(dtype)));
          }
        }
      }
      One ties{.op = op,
               .inputs = {{{3, 5}, false, {}, {0, -0.0f, 1e-40f, -1e-40f, 0, NAN, 1, NAN, 2, 3, 4, 4, -4, 4, -4}}},
               .attributes = {{"axis", int64_t{1}}, {"select_last_index", last}}};
      same(ties, "ties");
    }
  }
}

TEST(elements_and_tuples_are_gathered_as_on_the_cpu) {
  for (const int64_t axis : {0, 1, -1}) {
    same({.op = "GatherElements",
          .inputs = {{{3, 4, 5}}, whole({2, 3, 4}, DType::kI64, {0, 2, -1, 1, -2, 0, 2, 1, -3, 1, 2, 0,
                                                                 0, 2, -1, 1, -2, 0, 2, 1, -3, 1, 2, 0})},
          .attributes = {{"axis", axis}}},
         cat("axis ", axis));
  }
  same({.op = "GatherElements", .inputs = {{{5}}, whole({7}, DType::kI32, {4, 3, 2, 1, 0, -1, -5})}}, "int32");
  same({.op = "GatherND", .inputs = {{{3, 4, 5}}, whole({4, 2}, DType::kI64, {0, 1, 2, 3, -1, -4, 1, 1})}}, "rows");
  same({.op = "GatherND", .inputs = {{{3, 4, 5}}, whole({2, 3}, DType::kI64, {0, 1, 2, 2, 3, -1})}}, "elements");
  same({.op = "GatherND",
        .inputs = {{{3, 4, 5}}, whole({3, 2, 1}, DType::kI64, {0, 3, 1, -1, 2, 2})},
        .attributes = {{"batch_dims", int64_t{1}}}},
       "in batches");
}

TEST(powers_and_waves_have_the_bits_of_the_cpu) {
  for (const float exponent : {2.0f, 3.0f, 0.5f, -1.0f, 1.7f, 0.0f, -2.5f}) {
    same({.op = "Pow", .inputs = {{{7, 300}}, constant(Floats{exponent})}, .wild = true}, cat("to ", exponent));
  }
  same({.op = "Pow", .inputs = {{{7, 300}}, constant(Ints{5})}, .wild = true}, "to 5");
  same({.op = "Pow", .inputs = {{{7, 300}}, {{300}}}, .wild = true}, "to exponents of the run");
  same({.op = "Pow", .inputs = {{{7, 1}}, {{5, 1, 300}}}, .wild = true}, "both broadcast");
  for (const char* op : {"Sin", "Cos", "Tan", "Atan", "Asin", "Acos", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh"}) {
    same({.op = op, .inputs = {{{7, 300}}}, .wild = true}, "wild");
    same({.op = op, .inputs = {{{7, 300}}}}, op);
  }
}

TEST(what_is_no_number_is_found_as_on_the_cpu) {
  same({.op = "IsNaN", .inputs = {{{7, 300}}}, .wild = true}, "wild");
  for (const int64_t positive : {0, 1}) {
    for (const int64_t negative : {0, 1}) {
      same({.op = "IsInf",
            .inputs = {{{7, 300}}},
            .attributes = {{"detect_positive", positive}, {"detect_negative", negative}},
            .wild = true},
           cat(positive, " ", negative));
    }
  }
}

TEST(tiles_repeat_as_on_the_cpu) {
  const std::pair<Shape, Ints> cases[] = {
      {{2, 3, 4}, {1, 2, 3}}, {{2, 1, 4}, {3, 5, 1}}, {{5}, {4}}, {{1, 1}, {2, 3}}, {{2, 2, 2, 2}, {2, 3, 1, 2}}};
  for (const auto& [shape, repeats] : cases) {
    same({.op = "Tile", .inputs = {{shape}, constant(repeats)}}, shape.str());
  }
  same({.op = "Tile", .inputs = {whole({2, 3}, DType::kI64, {1, 2, 3, 4, 5, 6}), constant(Ints{2, 2})}}, "int64");
}

TEST(triangles_are_those_of_the_cpu) {
  for (const int64_t upper : {0, 1}) {
    const std::map<std::string, Attribute, std::less<>> attributes{{"upper", upper}};
    same({.op = "Trilu", .inputs = {{{2, 5, 4}}}, .attributes = attributes}, "the diagonal");
    for (const int64_t k : {-9, -2, 0, 1, 3, 9}) {
      same({.op = "Trilu", .inputs = {{{2, 4, 5}}, constant(Ints{k})}, .attributes = attributes}, cat("diagonal ", k));
      same({.op = "Trilu", .inputs = {{{5, 3}}, whole({1}, DType::kI64, {k})}, .attributes = attributes},
           cat("diagonal ", k, " of the run"));
    }
    same({.op = "Trilu", .inputs = {whole({2, 2}, DType::kBool, {1, 1, 1, 1})}, .attributes = attributes}, "bools");
  }
}

TEST(an_index_that_is_out_of_range_is_named_with_its_step) {
  cuda_on_host::Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  const One cases[] = {
      {.op = "GatherElements", .inputs = {{{3}}, whole({2}, DType::kI64, {0, 3})}},
      {.op = "GatherND", .inputs = {{{3, 2}}, whole({2, 2}, DType::kI64, {0, 1, -4, 0})}},
  };
  for (const One& one : cases) {
    try {
      run(make(one), *device, 1);
      CHECK(false);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kInference);
      const std::string what = error.what();
      CHECK(what.find(one.op) != std::string::npos);
      CHECK(what.find("out of range") != std::string::npos);
    }
  }
}

TEST(what_integers_lack_on_a_device_is_named) {
  cuda_on_host::Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  const auto why = [&](const One& one) -> std::string {
    const Made made = make(one);
    PackedWeights cache;
    try {
      compile(made.graph, made.facts, cache, {.device = device.get()});
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  const Given x = whole({2, 3}, DType::kI64, {1, 2, 3, 4, 5, 6});
  CHECK(why({.op = "ReduceMean", .inputs = {x}}).find("more than 64 bits") != std::string::npos);
  CHECK(why({.op = "ReduceL2", .inputs = {x}}).find("roots and logarithms of float32") != std::string::npos);
}

}  // namespace
