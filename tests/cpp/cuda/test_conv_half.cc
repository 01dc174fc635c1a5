// Convolutions of halves on the host: what surrounds the tensor cores, to the bit (test_gemm_half.cc).
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/dtype.h"
#include "convolutions.h"
#include "kernels/cpu/conv/conv.h"
#include "kernels/cpu/vmath/vmath.h"
#include "kernels/summation.h"

using namespace inferkit;
using namespace inferkit::testing;
namespace cuda = inferkit::kernels::cuda;
using cuda::Kernel;
using kernels::ConvDim;
using kernels::Unary;

namespace {

uint16_t bits_of(bool bf16, float v) {
  if (std::fabs(v) < std::numeric_limits<float>::min()) v = std::copysign(0.0f, v);
  return bf16 ? to_bfloat16(v).bits : to_half(v).bits;
}
float rounded(bool bf16, float v) {
  const uint16_t bits = bits_of(bf16, v);
  return bf16 ? to_float(BFloat16{bits}) : to_float(Half{bits});
}

struct Problem {
  int64_t batch, groups, channels, filters;  // of one group
  ConvDim dim[3];
  Unary act = Unary::kIdentity;
  bool has_bias = true;
  std::vector<float> x{}, w{}, bias{};

  int64_t in() const { return dim[0].in * dim[1].in * dim[2].in; }
  int64_t out() const { return dim[0].out * dim[1].out * dim[2].out; }
  int64_t k() const { return channels * dim[0].kernel * dim[1].kernel * dim[2].kernel; }
  size_t y_size() const { return static_cast<size_t>(batch * groups * filters * out()); }
  int64_t chunk() const { return cuda::half_chunk(kernels::sum_chunk(k())); }
  int64_t pairs_row() const { return (k() + 7) / 8 * 4; }

  void draw() {
    x = random_floats(static_cast<size_t>(batch * groups * channels * in()), 1);
    w = random_floats(static_cast<size_t>(groups * filters * k()), 2);
    bias = random_floats(static_cast<size_t>(groups * filters), 3);
  }
  std::vector<uint32_t> pairs(bool bf16) const {
    std::vector<uint32_t> out(static_cast<size_t>(groups * filters * pairs_row()), 0);
    for (int64_t i = 0; i < groups * filters * k(); ++i) {
      const int64_t row = i / k(), term = i % k();
      out[static_cast<size_t>(row * pairs_row() + term / 2)] |=
          static_cast<uint32_t>(bits_of(bf16, w[static_cast<size_t>(i)])) << (term % 2 * 16);
    }
    return out;
  }
  std::vector<float> by_the_rule(bool bf16, Isa isa) const {
    std::vector<float> y;
    std::vector<float> windows(static_cast<size_t>((out() + 15) / 16 * 16 * k()));  // [pixel / 16][term][pixel % 16]
    for (int64_t image = 0; image < batch * groups; ++image) {
      kernels::PackPixelsArgs pack;
      pack.x = x.data() + image * channels * in();
      pack.to = windows.data();
      pack.channels = channels;
      for (int d = 0; d < 3; ++d) pack.dim[d] = dim[d];
      pack.count = out();
      kernels::conv_kernels(isa).pack_pixels(pack);
      for (int64_t f = image % groups * filters; f < (image % groups + 1) * filters; ++f) {
        for (int64_t pixel = 0; pixel < out(); ++pixel) {
          const auto add = [&](float sum, int64_t term) {
            if (term >= k()) return std::fma(0.0f, 0.0f, sum);
            const float value = windows[static_cast<size_t>(pixel / 16 * 16 * k() + term * 16 + pixel % 16)];
            return std::fma(rounded(bf16, w[static_cast<size_t>(f * k() + term)]), rounded(bf16, value), sum);
          };
          float total = 0;
          for (int64_t first = 0; first < k(); first += chunk()) {
            float sum = 0;
            for (int64_t term = first; term < std::min((k() + 15) / 16 * 16, first + chunk()); term += 2) {
              sum = add(add(sum, term + 1), term);
            }
            total = first == 0 ? sum : total + sum;
          }
          y.push_back(has_bias ? total + bias[static_cast<size_t>(f)] : total);
        }
      }
    }
    if (act != Unary::kIdentity) {
      kernels::vmath_kernels(isa).unary[static_cast<size_t>(act)](y.data(), y.data(), static_cast<int64_t>(y.size()),
                                                                  0.25f, 0.5f);
    }
    return y;
  }
};

cuda::HalfConvParams params_of(const Problem& s, const std::vector<uint32_t>* pairs, std::vector<float>& y) {
  cuda::HalfConvParams h{};
  cuda::ConvParams& p = h.of;
  p.x = s.x.data();
  p.w = pairs ? nullptr : s.w.data();
  p.y = y.data();
  p.bias = s.has_bias ? s.bias.data() : nullptr;
  set_geometry(p, s);
  p.chunk = static_cast<int32_t>(s.chunk());
  if (pairs) {
    h.pairs = pairs->data();
    h.pairs_row = static_cast<int32_t>(s.pairs_row());
  }
  return h;
}

enum class Way { kWide, kTiled, kWideParts, kTiledParts };
constexpr Way kWays[] = {Way::kWide, Way::kTiled, Way::kWideParts, Way::kTiledParts};
constexpr const char* kNames[] = {"wide", "tiled", "wide, in parts", "tiled, in parts"};
const char* name_of(Way way) { return kNames[static_cast<size_t>(way)]; }

template <class Cut>
void run_tiles(Kernel kernel, const Problem& s, cuda::HalfConvParams h, bool in_parts, cuda_on_host::Grid grid) {
  const auto blocks = [](int64_t n, int64_t each) { return static_cast<unsigned>((n + each - 1) / each); };
  const unsigned chunks = blocks(s.k(), h.of.chunk);
  std::vector<float> parts;
  if (in_parts) {
    parts.assign(chunks * s.y_size(), NAN);
    h.of.parts = parts.data();
  }
  grid.blocks = {blocks(s.filters, Cut::kRows), blocks(s.batch * s.out(), Cut::kColumns),
                 static_cast<unsigned>(s.groups) * (in_parts ? chunks : 1)};
  if (grid.seed % 3 == 0) grid.blocks.y = grid.blocks.z = 1;  // as if a device took no more
  grid.threads = {Cut::kThreads};
  grid.shared_bytes = cuda::kConvShared<Cut>;
  cuda_on_host::launch(kernel, grid, &h);
  if (in_parts) cuda_on_host::launch(Kernel::conv_add, {.blocks = {2}, .threads = {64}, .seed = grid.seed}, &h.of);
}

/// As csrc/engine/cuda/conv.cc launches it.
void run(Way way, bool bf16, const Problem& s, const cuda::HalfConvParams& h, cuda_on_host::Grid grid = {}) {
  if (way == Way::kWide || way == Way::kWideParts) {
    run_tiles<cuda::HalfConvWide>(bf16 ? Kernel::conv_bf16_wide : Kernel::conv_f16_wide, s, h, way == Way::kWideParts,
                                  grid);
  } else {
    run_tiles<cuda::HalfConvTiled>(bf16 ? Kernel::conv_bf16_tiled : Kernel::conv_f16_tiled, s, h,
                                   way == Way::kTiledParts, grid);
  }
}

const ConvDim kNone;

TEST(convolutions_of_halves_are_the_definition) {
  const FloatEnvironment ours;
  const auto isas = fusing_isas();
  if (isas.empty()) return;
  Problem problems[] = {
      {1, 1, 3, 5, {kNone, line_of(6, 3, 1, 1), line_of(7, 3, 1, 1)}, Unary::kRelu},
      {2, 1, 16, 9, {kNone, line_of(5, 3, 2, 1), line_of(6, 3, 2, 1)}},                            // chunks
      {3, 1, 40, 70, {kNone, line_of(3, 1), line_of(5, 1)}, Unary::kClip, false},                  // one pixel each
      {2, 1, 33, 6, {kNone, line_of(5, 3), line_of(5, 3, 1, 2, 2)}, Unary::kSilu},                 // dilation
      {2, 3, 4, 8, {kNone, line_of(6, 2, 3, 0), line_of(4, 2, 2, 1)}},                             // groups
      {2, 1, 5, 6, {kNone, kNone, line_of(33, 7, 2, 3)}},                                          // a line
      {1, 1, 3, 5, {line_of(4, 3, 1, 1), line_of(5, 2, 2), line_of(4, 3, 1, 1)}, Unary::kGelu},    // a volume
      {1, 1, 300, 6, {kNone, line_of(3, 3, 1, 1), line_of(2, 3, 1, 1)}, Unary::kIdentity, false},  // many chunks
      {1, 1, 2, 5, {kNone, line_of(2, 5, 1, 4), line_of(2, 5, 3, 5)}},                  // windows of padding alone
      {2, 2, 8, 140, {kNone, line_of(9, 3, 1, 1), line_of(8, 3, 1, 1)}, Unary::kRelu},  // several wide tiles
      {3, 2, 70, 41, {kNone, line_of(4, 1), line_of(9, 1)}, Unary::kRelu},              // four pixels at a time
      {2, 1, 2, 6, {kNone, kNone, line_of(20, 34, 1, 30, 2)}},                          // many lines, some of padding
      {1, 2, 2, 7, {kNone, line_of(17, 16), line_of(35, 17)}},                          // many lines, all inside
  };
  for (Problem& s : problems) {
    s.draw();
    for (const bool bf16 : {true, false}) {
      const auto want = s.by_the_rule(bf16, isas.front());
      const auto pairs = s.pairs(bf16);
      for (const Way way : kWays) {
        for (const uint64_t seed : kSeeds) {
          if (seed > 1 && (!bf16 || s.y_size() > 5000)) continue;
          for (const auto* constant : {&pairs, static_cast<const std::vector<uint32_t>*>(nullptr)}) {
            std::vector<float> y(s.y_size(), NAN);
            run(way, bf16, s, params_of(s, constant, y), {.seed = seed});
            const std::string what = cat(name_of(way), bf16 ? " bf16, " : " f16, ", s.groups, " groups, ", s.k(),
                                         " terms, ", constant ? "constant, " : "", "seed ", seed);
            if (!same_values(y.data(), want.data(), want.size(), what)) return;
          }
        }
      }
    }
  }
}

TEST(halves_of_all_sizes_are_convolved_as_defined) {
  const FloatEnvironment ours;
  const auto isas = fusing_isas();
  if (isas.empty()) return;
  Problem s{2, 1, 20, 6, {kNone, line_of(5, 3, 1, 1), line_of(6, 3, 2, 1)}};
  s.draw();
  s.x = wild_floats(s.x.size(), 5);
  s.w = wild_floats(s.w.size(), 6);
  const auto want = s.by_the_rule(true, isas.front());
  const auto pairs = s.pairs(true);
  for (const Way way : kWays) {
    std::vector<float> y(want.size());
    run(way, true, s, params_of(s, &pairs, y));
    CHECK(same_values(y.data(), want.data(), want.size(), name_of(way)));
  }
}

TEST(a_convolution_of_halves_without_every_other_barrier_is_wrong_with_every_seed) {
  if (!places_may_be_wrong()) return;
  const FloatEnvironment ours;
  Problem s{1, 1, 300, 16, {kNone, line_of(6, 3, 1, 1), line_of(6, 3, 1, 1)}, Unary::kIdentity, false};
  s.draw();
  std::vector<float> want(s.y_size()), y(want.size());
  run(Way::kTiled, true, s, params_of(s, nullptr, want));
  for (const Way way : {Way::kWide, Way::kTiled, Way::kTiledParts}) {
    for (const unsigned drop : {0u, 1u}) {
      for (uint64_t seed = 1; seed <= 5; ++seed) {
        std::ranges::fill(y, 0.0f);
        run(way, true, s, params_of(s, nullptr, y), {.seed = seed, .drop_every = 2, .drop = drop});
        if (same(y.data(), want.data(), want.size())) {
          fail(__FILE__, __LINE__, cat(name_of(way), " without barrier ", drop, " is right for seed ", seed));
        }
      }
    }
  }
}

}  // namespace
