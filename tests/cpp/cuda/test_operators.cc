// Operators on the tests' CUDA device, one at a time, to the bit as on the CPU.
#include "operators.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

// ---- Pooling --------------------------------------------------------------------------------------------------------

TEST(pooling_in_one_to_three_dimensions_has_the_bits_of_the_cpu) {
  struct Pool {
    Shape x;
    Ints kernel, strides, pads, dilations;
  };
  const Pool pools[] = {
      {{2, 3, 17}, {3}, {2}, {1, 1}, {1}},
      {{1, 2, 9, 8}, {3, 2}, {2, 1}, {1, 0, 1, 1}, {1, 2}},
      {{2, 2, 5, 6, 7}, {2, 3, 2}, {2, 1, 2}, {1, 1, 0, 0, 1, 1}, {1, 1, 1}},
      {{1, 2, 7, 8, 5}, {3, 3, 3}, {1, 2, 1}, {2, 2, 2, 2, 2, 2}, {2, 2, 1}},
      {{1, 1, 4, 70, 5}, {3, 33, 2}, {1, 9, 1}, {0, 5, 0, 0, 5, 0}, {1, 1, 1}},    // chunks down
      {{1, 1, 3, 3, 90}, {2, 2, 40}, {1, 1, 7}, {0, 0, 39, 0, 0, 39}, {1, 1, 1}},  // and across
      {{1, 1, 9000}, {5}, {3}, {2, 2}, {1}},  // a row that the CPU's kernel does not take
  };
  for (const Pool& pool : pools) {
    for (const char* op : {"MaxPool", "AveragePool"}) {
      for (const bool wild : {false, true}) {
        for (const int64_t include : {0, 1}) {
          const bool average = std::string(op) == "AveragePool";
          if (include && !average) continue;
          One one{.op = op,
                  .inputs = {{pool.x}},
                  .attributes = {{"kernel_shape", pool.kernel},
                                 {"strides", pool.strides},
                                 {"pads", pool.pads},
                                 {"dilations", pool.dilations}},
                  .version = 19,
                  .wild = wild};
          if (average) one.attributes["count_include_pad"] = include;
          same(one, cat(pool.x.str(), wild ? " wild" : "", include ? " with padding" : ""));
        }
      }
    }
  }
}

TEST(the_indices_of_a_maximum_are_those_of_the_cpu) {
  for (const int64_t order : {0, 1}) {
    for (const bool wild : {false, true}) {
      One one{.op = "MaxPool",
              .inputs = {{{2, 3, 7, 9}}},
              .attributes = {{"kernel_shape", Ints{3, 2}},
                             {"strides", Ints{2, 2}},
                             {"pads", Ints{1, 1, 1, 0}},
                             {"storage_order", order}},
              .outputs = 2,
              .wild = wild};
      same(one, cat("order ", order, wild ? " wild" : ""));
      one.inputs = {{{1, 2, 4, 5, 6}}};
      one.attributes["kernel_shape"] = Ints{2, 3, 2};
      one.attributes["strides"] = Ints{1, 2, 2};
      one.attributes["pads"] = Ints{1, 0, 0, 0, 1, 1};
      same(one, cat("volumes, order ", order, wild ? " wild" : ""));
    }
  }
  One ties{.op = "MaxPool",
           .inputs = {{{1, 1, 4}, false, {}, {0.0f, -0.0f, 3, 3}}},
           .attributes = {{"kernel_shape", Ints{2}}},
           .outputs = 2};
  same(ties, "ties");
}

// ---- Normalisations -------------------------------------------------------------------------------------------------

TEST(groups_are_normalised_with_the_bits_of_the_cpu) {
  struct Case {
    Shape x;
    int64_t groups;  // 0: each channel by itself
  };
  const Case cases[] = {{{2, 6, 5, 7}, 0}, {{1, 3, 130}, 0},  {{3, 4, 1}, 0}, {{2, 6, 5, 7}, 3}, {{1, 8, 3, 3, 3}, 2},
                        {{2, 4, 1, 1}, 2}, {{2, 4, 1, 1}, 4}, {{1, 5, 9}, 1}, {{2, 4, 31}, 4}};
  for (const auto& [x, groups] : cases) {
    for (const bool wild : {false, true}) {
      const int64_t channels = x[1];
      for (const int version : {18, 21}) {
        if (groups == 0 && version == 21) continue;
        const int64_t values = groups == 0 || version == 21 ? channels : groups;
        One one{.op = groups == 0 ? "InstanceNormalization" : "GroupNormalization",
                .inputs = {{x}, weights({values}), weights({values})},
                .attributes = {{"epsilon", 1e-3f}},
                .version = version,
                .wild = wild};
        if (groups > 0) one.attributes["num_groups"] = groups;
        same(one, cat(x.str(), " in ", groups, ", opset ", version, wild ? " wild" : ""));
      }
    }
  }
}

// ---- ConvTranspose --------------------------------------------------------------------------------------------------

TEST(a_transposed_convolution_has_the_bits_of_the_cpu) {
  struct Turned {
    Shape x, w;
    Ints strides, pads, dilations, extra;
    int64_t groups = 1;
    bool bias = true;
  };
  const Turned cases[] = {
      {{2, 3, 7}, {3, 4, 3}, {2}, {1, 0}, {1}, {1}},
      {{2, 6, 5, 4}, {6, 2, 3, 3}, {2, 2}, {1, 1, 1, 1}, {1, 1}, {1, 0}, 2, false},
      {{1, 300, 3, 3}, {300, 5, 2, 2}, {2, 2}, {0, 0, 0, 0}, {1, 1}, {0, 0}},        // chunks of channels
      {{1, 2, 9, 9}, {2, 3, 7, 7}, {1, 1}, {3, 3, 3, 3}, {1, 1}, {0, 0}},            // and of taps
      {{1, 2, 9, 9}, {2, 3, 9, 9}, {2, 1}, {3, 3, 3, 3}, {1, 2}, {1, 0}, 1, false},  // with strides and gaps
      {{1, 4, 3, 4, 3}, {4, 2, 2, 3, 2}, {2, 1, 3}, {0, 1, 0, 1, 0, 0}, {1, 2, 1}, {0, 0, 2}, 2},
      {{1, 8, 6, 6}, {8, 1, 4, 4}, {2, 2}, {1, 1, 1, 1}, {1, 1}, {0, 0}, 8},
      {{1, 1, 3}, {1, 1, 1}, {4}, {0, 0}, {1}, {3}},  // pixels that nothing reaches
  };
  for (const Turned& of : cases) {
    for (const bool wild : {false, true}) {
      One one{.op = "ConvTranspose",
              .inputs = {{of.x}, weights(of.w)},
              .attributes = {{"strides", of.strides},
                             {"pads", of.pads},
                             {"dilations", of.dilations},
                             {"output_padding", of.extra},
                             {"group", of.groups}},
              .wild = wild};
      if (of.bias) one.inputs.push_back(weights({of.w[1] * of.groups}));
      same(one, cat(of.x.str(), " by ", of.w.str(), wild ? " wild" : ""));
    }
  }
}

// ---- Resize ---------------------------------------------------------------------------------------------------------

TEST(a_resize_has_the_bits_of_the_cpu) {
  for (const char* mode : {"nearest", "linear", "cubic"}) {
    for (const char* place :
         {"half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"}) {
      for (const bool wild : {false, true}) {
        One one{.op = "Resize",
                .inputs = {{{2, 3, 7, 5}}, no_input(), constant(Floats{1, 1, 2, 1.6f})},
                .attributes = {{"mode", std::string(mode)}, {"coordinate_transformation_mode", std::string(place)}},
                .version = 19,
                .wild = wild};
        const std::string what = cat(mode, ", ", place, wild ? ", wild" : "");
        same(one, what);
        one.inputs = {{{1, 2, 9, 8}}, no_input(), no_input(), constant(Ints{1, 2, 4, 13})};
        same(one, cat(what, ", sizes"));
        if (std::string(mode) == "nearest") continue;
        one.attributes["antialias"] = int64_t{1};
        one.attributes["exclude_outside"] = int64_t{1};
        same(one, cat(what, ", antialiased"));
      }
    }
  }
}

TEST(a_resize_of_other_shapes_has_the_bits_of_the_cpu) {
  same({.op = "Resize",
        .inputs = {{{1, 2, 3, 4, 5}}, no_input(), constant(Floats{1, 1, 2, 1.5f, 0.6f})},
        .attributes = {{"mode", std::string("linear")}},
        .version = 13},
       "volumes");
  same({.op = "Resize",
        .inputs = {{{1, 1, 300}}, no_input(), no_input(), constant(Ints{1, 1, 4})},
        .attributes = {{"mode", std::string("linear")}, {"antialias", int64_t{1}}},
        .version = 18},
       "many taps");
  for (const char* mode : {"nearest", "linear"}) {
    same({.op = "Resize",
          .inputs = {{{1, 1, 6, 6}},
                     constant(Floats{0, 0, -0.3f, 0.2f, 1, 1, 1.4f, 0.8f}),
                     no_input(),
                     constant(Ints{1, 1, 5, 7})},
          .attributes = {{"mode", std::string(mode)},
                         {"coordinate_transformation_mode", std::string("tf_crop_and_resize")},
                         {"extrapolation_value", -3.5f}},
          .version = 13,
          .wild = true},
         cat("cut out, ", mode));
  }
  same({.op = "Resize",
        .inputs = {{{1, 2, 5, 4}}, no_input(), constant(Floats{1, 1, 2, 2})},
        .version = 13,
        .dtype = DType::kI64},
       "of integers");
}

// ---- Recurrent layers -----------------------------------------------------------------------------------------------

TEST(recurrent_layers_have_the_bits_of_the_cpu) {
  struct Size {
    int64_t steps, batch, in, hidden;
  };
  for (const char* op : {"LSTM", "GRU", "RNN"}) {
    const bool lstm = std::string(op) == "LSTM", gru = std::string(op) == "GRU";
    const int64_t gates = lstm ? 4 : gru ? 3 : 1;
    for (const Size& s :
         {Size{3, 2, 5, 7}, Size{1, 1, 4, 3}, Size{2, 9, 40, 40}, Size{4, 1, 3, 300}, Size{3, 2, 2, 32}}) {
      for (const char* direction : {"forward", "reverse", "bidirectional"}) {
        const int64_t d = std::string(direction) == "bidirectional" ? 2 : 1;
        if (d == 2 && s.hidden > 100) continue;
        for (const int64_t after : {0, 1}) {
          if (after && !gru) continue;
          for (const int64_t layout : {0, 1}) {
            const Shape x = layout ? Shape{s.batch, s.steps, s.in} : Shape{s.steps, s.batch, s.in};
            const Shape state = layout ? Shape{s.batch, d, s.hidden} : Shape{d, s.batch, s.hidden};
            One one{
                .op = op,
                .inputs = {{x}, weights({d, gates * s.hidden, s.in}), weights({d, gates * s.hidden, s.hidden})},
                .attributes = {{"hidden_size", s.hidden}, {"direction", std::string(direction)}, {"layout", layout}},
                .outputs = lstm ? size_t{3} : size_t{2}};
            if (gru) one.attributes["linear_before_reset"] = after;
            const std::string what = cat(s.steps, " steps of ", s.batch, ", ", s.hidden, " units, ", direction,
                                         ", layout ", layout, after ? ", reset after" : "");
            same(one, what);
            if (s.hidden > 100) continue;
            one.inputs.push_back(weights({d, 2 * gates * s.hidden}));
            one.inputs.push_back(no_input());
            one.inputs.push_back({state});
            if (lstm) one.inputs.push_back({state});
            same(one, cat(what, ", with bias and states"));
          }
        }
      }
    }
  }
}

TEST(a_recurrent_layer_with_relu_has_the_bits_of_the_cpu) {
  same({.op = "RNN",
        .inputs = {{{4, 2, 3}}, weights({1, 6, 3}), weights({1, 6, 6})},
        .attributes = {{"hidden_size", int64_t{6}}, {"activations", Texts{"Relu"}}}},
       "relu");
}

TEST(a_step_of_a_recurrent_layer_without_one_of_its_barriers_is_wrong_with_every_seed) {
  const FloatEnvironment ours;
  constexpr int32_t kHidden = 300;
  const auto r = random_floats(4 * kHidden * kHidden, 1), state = random_floats(kHidden, 2),
             cell = random_floats(kHidden, 3);
  const auto x = random_floats(4 * kHidden, 4);
  const auto run = [&](const cuda_on_host::Grid& grid) {
    std::vector<float> own = x, next(kHidden), next_cell(kHidden);
    kernels::cuda::RecurrentParams p{};
    p.r = r.data();
    p.x = own.data();
    p.times = p.state = state.data();
    p.cell = cell.data();
    p.next = next.data();
    p.next_cell = next_cell.data();
    p.r_row = 4 * kHidden;
    p.batch = 1;
    p.hidden = kHidden;
    p.chunk = p.last_chunk = 32;
    p.op = kernels::cuda::RecurrentStep::kLstm;
    p.gates = 4;
    p.units = 8;
    cuda_on_host::Grid launched = grid;
    launched.blocks = {(kHidden + 7) / 8};
    launched.threads = {kernels::cuda::kRecurrentThreads};
    launched.shared_bytes = kernels::cuda::kRecurrentShared;
    cuda_on_host::launch(kernels::cuda::Kernel::recurrent_step, launched, &p);
    return next;
  };
  const auto want = run({});
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    CHECK(run({.seed = seed}) == want);
    for (const unsigned drop : {0u, 1u}) CHECK(run({.seed = seed, .drop_every = 2, .drop = drop}) != want);
  }
}

TEST(what_a_recurrent_layer_on_a_device_lacks_is_named) {
  Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  const One plain{.op = "LSTM",
                  .inputs = {{{2, 1, 3}}, weights({1, 8, 3}), weights({1, 8, 2})},
                  .attributes = {{"hidden_size", int64_t{2}}}};
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
  CHECK_EQ(why(plain), "");
  One clipped = plain, coupled = plain, other = plain, fed = plain;
  clipped.attributes["clip"] = 1.0f;
  coupled.attributes["input_forget"] = int64_t{1};
  other.attributes["activations"] = Texts{"Sigmoid", "Relu", "Tanh"};
  fed.inputs[1].constant = false;
  CHECK(why(clipped).find("it clips") != std::string::npos);
  CHECK(why(coupled).find("coupled") != std::string::npos);
  CHECK(why(other).find("activations") != std::string::npos);
  CHECK(why(fed).find("no constants") != std::string::npos);
}

}  // namespace
