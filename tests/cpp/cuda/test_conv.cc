// Convolutions and pooling on the host, to the bit as the CPU's tiers.
#include "convolutions.h"
#include "kernels/cpu/affine/affine.h"
#include "kernels/cpu/conv/conv.h"
#include "kernels/cpu/gemm/gemm.h"
#include "kernels/cpu/pool/pool.h"
#include "kernels/cpu/vmath/vmath.h"
#include "kernels/summation.h"

using namespace inferkit;
using namespace inferkit::testing;
namespace cuda = inferkit::kernels::cuda;
using kernels::ConvDim;
using kernels::Unary;

namespace {

struct Conv {
  int64_t batch, groups, channels, filters;  // of one group
  ConvDim dim[3];
  Unary act = Unary::kIdentity;
  bool bias = true;

  int64_t in() const { return dim[0].in * dim[1].in * dim[2].in; }
  int64_t out() const { return dim[0].out * dim[1].out * dim[2].out; }
  int64_t k() const { return channels * dim[0].kernel * dim[1].kernel * dim[2].kernel; }
  size_t x_size() const { return static_cast<size_t>(batch * groups * channels * in()); }
  size_t w_size() const { return static_cast<size_t>(groups * filters * k()); }
  size_t y_size() const { return static_cast<size_t>(batch * groups * filters * out()); }
  std::string str() const {
    return cat(batch, " images, ", groups, " groups, ", channels, " to ", filters, ", ", k(), " terms");
  }
};

/// As engine/ops/common/conv_packed.cc: a product of the filters and the packed windows.
std::vector<float> on_cpu(const Conv& s, Isa isa, const std::vector<float>& x, const std::vector<float>& w,
                          const std::vector<float>& bias) {
  std::vector<float> y(s.y_size());
  const int64_t panels = (s.out() + 15) / 16;
  std::vector<float> packed(static_cast<size_t>(panels * 16 * s.k()));
  for (int64_t image = 0; image < s.batch * s.groups; ++image) {
    const int64_t group = image % s.groups;
    kernels::PackPixelsArgs pack;
    pack.x = x.data() + image * s.channels * s.in();
    pack.to = packed.data();
    pack.channels = s.channels;
    for (int d = 0; d < 3; ++d) pack.dim[d] = s.dim[d];
    pack.count = s.out();
    kernels::conv_kernels(isa).pack_pixels(pack);
    kernels::GemmArgs g;
    g.m = s.filters;
    g.n = s.out();
    g.k = g.lda = s.k();
    g.a = w.data() + group * s.filters * s.k();
    kernels::use_packed_b(g, packed.data());
    g.c = y.data() + image * s.filters * s.out();
    g.ldc = s.out();
    if (s.bias) {
      g.bias = bias.data() + group * s.filters;
      g.bias_kind = kernels::BiasKind::kPerRow;
    }
    g.act = s.act;
    g.act_alpha = 0.25f;
    g.act_beta = 0.5f;
    g.k_chunk = kernels::sum_chunk(s.k());
    kernels::gemm_kernels(isa).gemm(g);
  }
  return y;
}

cuda::ConvParams params_of(const Conv& s, const std::vector<float>& x, const std::vector<float>& w,
                           const std::vector<float>& bias, std::vector<float>& y) {
  cuda::ConvParams p{};
  p.x = x.data();
  p.w = w.data();
  p.y = y.data();
  p.bias = s.bias ? bias.data() : nullptr;
  set_geometry(p, s);
  p.chunk = static_cast<int32_t>(kernels::sum_chunk(s.k()));
  return p;
}

unsigned blocks(int64_t n, int64_t each) { return static_cast<unsigned>((n + each - 1) / each); }

enum class Way { kWide, kTiled, kWideParts, kTiledParts, kDirect, kDepthwise };
constexpr Way kWays[] = {Way::kWide, Way::kTiled, Way::kWideParts, Way::kTiledParts, Way::kDirect, Way::kDepthwise};
constexpr const char* kNames[] = {"wide", "tiled", "wide, in parts", "tiled, in parts", "direct", "depthwise"};
const char* name_of(Way way) { return kNames[static_cast<size_t>(way)]; }

std::vector<float> packed(const Conv& s, const float* w) {
  const int64_t row = (s.filters + 3) / 4 * 4;
  std::vector<float> out(static_cast<size_t>(s.groups * s.k() * row), 0.0f);
  for (int64_t i = 0; i < s.groups * s.filters * s.k(); ++i) {
    const int64_t filter = i / s.k(), group = filter / s.filters;
    out[static_cast<size_t>((group * s.k() + i % s.k()) * row + filter % s.filters)] = w[i];
  }
  return out;
}

template <class Cut>
void run_tiles(cuda::Kernel kernel, const Conv& s, cuda::ConvParams p, bool in_parts, bool constant,
               cuda_on_host::Grid grid) {
  std::vector<float> parts, filters;
  const unsigned chunks = blocks(s.k(), p.chunk);
  if (constant) {
    filters = packed(s, p.w);
    p.w = filters.data();
    p.packed_filters = static_cast<int32_t>((s.filters + 3) / 4 * 4);
  }
  if (in_parts) {
    parts.assign(chunks * s.y_size(), NAN);
    p.parts = parts.data();
  }
  grid.blocks = {blocks(s.filters, Cut::kRows), blocks(s.batch * s.out(), Cut::kColumns),
                 static_cast<unsigned>(s.groups) * (in_parts ? chunks : 1)};
  if (grid.seed % 3 == 0) grid.blocks.y = grid.blocks.z = 1;  // as if a device took no more
  grid.threads = {Cut::kThreads};
  grid.shared_bytes = cuda::kConvShared<Cut>;
  cuda_on_host::launch(kernel, grid, &p);
  if (in_parts) cuda_on_host::launch(cuda::Kernel::conv_add, {.blocks = {2}, .threads = {64}, .seed = grid.seed}, &p);
}

/// As csrc/engine/cuda/conv.cc launches it.
void run(Way way, const Conv& s, const cuda::ConvParams& p, cuda_on_host::Grid grid = {}, bool constant = true) {
  switch (way) {
    case Way::kWide:
    case Way::kWideParts:
      return run_tiles<cuda::ConvWide>(cuda::Kernel::conv_wide, s, p, way == Way::kWideParts, constant, grid);
    case Way::kTiled:
    case Way::kTiledParts:
      return run_tiles<cuda::ConvTiled>(cuda::Kernel::conv_tiled, s, p, way == Way::kTiledParts, constant, grid);
    case Way::kDirect:
      grid.blocks = {3};
      grid.threads = {64};
      return cuda_on_host::launch(cuda::Kernel::conv_direct, grid, &p);
    case Way::kDepthwise:
      grid.blocks = {3};
      grid.threads = {64};
      return cuda_on_host::launch(cuda::suits_depthwise(p) ? cuda::Kernel::conv_depthwise : cuda::Kernel::conv_direct,
                                  grid, &p);
  }
}

const ConvDim kNone;

TEST(every_way_of_a_convolution_has_the_bits_of_the_tiers) {
  const FloatEnvironment ours;
  const Conv convolutions[] = {
      {1, 1, 3, 5, {kNone, line_of(6, 3, 1, 1), line_of(7, 3, 1, 1)}, Unary::kRelu},
      {2, 1, 16, 9, {kNone, line_of(5, 3, 2, 1), line_of(6, 3, 2, 1)}},                    // chunks
      {3, 1, 40, 70, {kNone, line_of(3, 1), line_of(5, 1)}, Unary::kClip, false},          // one pixel each
      {2, 1, 33, 6, {kNone, line_of(5, 3), line_of(5, 3, 1, 2, 2)}, Unary::kSilu},         // dilation, no pad above
      {2, 3, 4, 8, {kNone, line_of(6, 2, 3, 0), line_of(4, 2, 2, 1, 1, 0)}},               // groups
      {2, 4, 1, 2, {kNone, line_of(7, 3, 1, 1), line_of(9, 5, 2, 2)}, Unary::kHardSwish},  // depthwise
      {2, 1, 5, 4, {kNone, kNone, line_of(33, 7, 2, 3)}},                                  // a line
      {1, 1, 3, 4, {line_of(4, 3, 1, 1), line_of(5, 2, 2), line_of(4, 3, 1, 1)}, Unary::kGelu},    // a volume
      {1, 1, 300, 3, {kNone, line_of(3, 3, 1, 1), line_of(2, 3, 1, 1)}, Unary::kIdentity, false},  // many chunks
      {1, 1, 2, 3, {kNone, line_of(2, 5, 1, 4), line_of(2, 5, 3, 5)}},                  // windows of padding alone
      {2, 2, 8, 140, {kNone, line_of(9, 3, 1, 1), line_of(8, 3, 1, 1)}, Unary::kRelu},  // several wide tiles
      {3, 2, 70, 41, {kNone, line_of(4, 1), line_of(9, 1)}, Unary::kRelu},              // four pixels at a time
      {2, 1, 2, 6, {kNone, kNone, line_of(20, 34, 1, 30, 2)}},                          // many lines, some of padding
      {1, 2, 2, 7, {kNone, line_of(17, 16), line_of(35, 17)}},                          // many lines, all inside
  };
  for (const Isa isa : fusing_isas()) {
    for (const Conv& s : convolutions) {
      const auto x = random_floats(s.x_size(), 1), w = random_floats(s.w_size(), 2);
      const auto bias = random_floats(static_cast<size_t>(s.groups * s.filters), 3);
      const auto want = on_cpu(s, isa, x, w, bias);
      for (const Way way : kWays) {
        for (const uint64_t seed : kSeeds) {
          for (const bool constant : {true, false}) {
            std::vector<float> y(s.y_size(), NAN);
            run(way, s, params_of(s, x, w, bias, y), {.seed = seed}, constant);
            const std::string what = cat(name_of(way), ", ", s.str(), ", ", isa_name(isa), ", seed ", seed);
            if (!same_values(y.data(), want.data(), want.size(), what)) return;
          }
        }
      }
    }
  }
}

TEST(values_of_all_sizes_are_convolved_as_on_the_cpu) {
  const FloatEnvironment ours;
  const Conv s{2, 1, 20, 6, {kNone, line_of(5, 3, 1, 1), line_of(6, 3, 2, 1)}, Unary::kRelu};
  const auto x = wild_floats(s.x_size(), 5), w = wild_floats(s.w_size(), 6);
  const auto bias = wild_floats(static_cast<size_t>(s.filters), 7);
  for (const Isa isa : fusing_isas()) {
    const auto want = on_cpu(s, isa, x, w, bias);
    for (const Way way : kWays) {
      std::vector<float> y(want.size());
      run(way, s, params_of(s, x, w, bias, y));
      CHECK(same_values(y.data(), want.data(), want.size(), name_of(way)));
    }
  }
}

TEST(a_depthwise_convolution_has_the_bits_of_its_own_kernel) {
  const FloatEnvironment ours;
  const Conv shapes[] = {{2, 3, 1, 1, {kNone, line_of(8, 3, 1, 1), line_of(19, 3, 1, 1)}},
                         {1, 2, 1, 2, {kNone, line_of(9, 5, 2, 2), line_of(11, 5, 2, 2)}, Unary::kIdentity, false},
                         {3, 2, 1, 1, {kNone, line_of(1, 3, 2, 1), line_of(33, 3, 2, 1)}},
                         {1, 3, 1, 3, {kNone, line_of(6, 5, 1, 4), line_of(3, 5, 1, 2)}},  // lines of padding alone
                         {2, 2, 1, 1, {kNone, line_of(12, 7, 1, 3, 2), line_of(10, 7, 1, 3)}}};  // chunks
  for (const Isa isa : fusing_isas()) {
    for (const Conv& s : shapes) {
      // Products so small that a sum is -0 before the bias.
      auto x = random_floats(s.x_size(), 1), w = random_floats(s.w_size(), 2);
      for (size_t i = 0; i < x.size() / 2; ++i) x[i] *= 0x1p-100f;
      for (float& v : w) v *= 0x1p-40f;
      const auto bias = random_floats(static_cast<size_t>(s.groups * s.filters), 3);
      std::vector<float> want(s.y_size()), y(s.y_size());
      std::vector<float> scratch(static_cast<size_t>(kernels::depthwise_scratch(s.dim[1], s.dim[2], s.dim[1].out)));
      for (int64_t plane = 0; plane < s.batch * s.groups * s.filters; ++plane) {
        const int64_t filter = plane % (s.groups * s.filters);
        kernels::DepthwiseArgs a;
        a.x = x.data() + plane / s.filters * s.in();
        a.y = want.data() + plane * s.out();
        a.weights = w.data() + filter * s.k();
        a.bias = s.bias ? bias[static_cast<size_t>(filter)] : 0;
        a.h = s.dim[1];
        a.w = s.dim[2];
        a.rows = s.dim[1].out;
        a.scratch = scratch.data();
        kernels::conv_kernels(isa).depthwise(a);
      }
      auto p = params_of(s, x, w, bias, y);
      p.adds_zero = true;
      for (const Way way : kWays) {
        run(way, s, p);
        CHECK(same_values(y.data(), want.data(), want.size(), cat(name_of(way), ", ", s.str())));
      }
    }
  }
}

TEST(a_convolution_without_every_other_barrier_is_wrong_with_every_seed) {
  if (!places_may_be_wrong()) return;
  const FloatEnvironment ours;
  const Conv s{1, 1, 300, 16, {kNone, line_of(6, 3, 1, 1), line_of(6, 3, 1, 1)}, Unary::kIdentity, false};
  const auto x = random_floats(s.x_size(), 1), w = random_floats(s.w_size(), 2);
  std::vector<float> want(s.y_size());
  run(Way::kDirect, s, params_of(s, x, w, {}, want));
  for (const Way way : {Way::kWide, Way::kTiled, Way::kTiledParts}) {
    for (const unsigned drop : {0u, 1u}) {
      for (uint64_t seed = 1; seed <= 5; ++seed) {
        std::vector<float> y(want.size());
        run(way, s, params_of(s, x, w, {}, y), {.seed = seed, .drop_every = 2, .drop = drop});
        if (same(y.data(), want.data(), want.size())) {
          fail(__FILE__, __LINE__, cat(name_of(way), " without barrier ", drop, " is right for seed ", seed));
        }
      }
    }
  }
}

// ---- Pooling --------------------------------------------------------------------------------------------------------

struct Pool {
  kernels::PoolDim h, w;
  bool include_pad = false;
};

kernels::PoolDim pool_line(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t pad = 0,
                           int64_t dilation = 1, int64_t pad_end = 0) {
  return {in, out, kernel, stride, dilation, pad, pad_end};
}

TEST(pooling_has_the_bits_of_the_tiers) {
  const FloatEnvironment ours;
  const Pool pools[] = {{pool_line(8, 4, 2, 2), pool_line(37, 18, 2, 2)},
                        {pool_line(7, 4, 3, 2, 1, 1, 1), pool_line(9, 5, 3, 2, 1, 1, 1), true},
                        {pool_line(7, 4, 3, 2, 1, 1, 1), pool_line(9, 5, 3, 2, 1, 1, 1), false},
                        {pool_line(9, 5, 3, 1, 0, 2), pool_line(20, 18, 3, 1)},
                        {pool_line(5, 2, 3, 3, 0, 1, 1), pool_line(5, 2, 3, 3, 0, 1, 1), true},
                        {pool_line(1, 1, 1, 1), pool_line(11, 6, 1, 2)},
                        {pool_line(150, 2, 140, 15, 4), pool_line(90, 3, 35, 40, 20, 1, 0), true},  // chunks both ways
                        {pool_line(40, 3, 33, 5, 2), pool_line(9, 7, 3, 1)},
                        {pool_line(2, 3, 2, 3, 4, 1, 4), pool_line(3, 3, 2, 3, 4, 1, 4)}};  // windows of padding alone
  constexpr int64_t kPlanes = 3;
  for (const Isa isa : fusing_isas()) {
    for (const Pool& s : pools) {
      for (const bool average : {false, true}) {
        const auto n = static_cast<size_t>(kPlanes * s.h.in * s.w.in);
        for (const auto& x : {random_floats(n, 1, -4, 4), wild_floats(n, 2)}) {
          std::vector<float> want(static_cast<size_t>(kPlanes * s.h.out * s.w.out)), y(want.size(), 7);
          kernels::PoolArgs args{x.data(), want.data(), s.h, s.w, s.include_pad};
          (average ? kernels::pool_kernels(isa).average : kernels::pool_kernels(isa).max)(args, kPlanes);
          cuda::PoolParams p{};
          p.x = x.data();
          p.y = y.data();
          const auto of = [](const kernels::PoolDim& d) {
            return axis({d.in, d.out, d.kernel, d.stride, d.dilation, d.pad_begin});
          };
          p.d = axis({1, 1, 1, 1, 1, 0});
          p.h = of(s.h);
          p.w = of(s.w);
          p.h_pad_end = static_cast<int32_t>(s.h.pad_end);
          p.w_pad_end = static_cast<int32_t>(s.w.pad_end);
          p.h_chunk = static_cast<int32_t>(kernels::sum_chunk(s.h.kernel));
          p.w_chunk = static_cast<int32_t>(kernels::sum_chunk(s.w.kernel));
          p.planes = kPlanes;
          p.average = average;
          p.include_pad = s.include_pad;
          cuda_on_host::launch(cuda::Kernel::pool_planes, {.blocks = {2}, .threads = {64}}, &p);
          const std::string what = cat(average ? "average" : "max", " of ", s.h.in, "x", s.w.in, ", ", isa_name(isa));
          if (!same_values(y.data(), want.data(), want.size(), what)) return;
        }
      }
    }
  }
}

TEST(an_affine_map_has_the_bits_of_the_tiers) {
  const FloatEnvironment ours;
  constexpr int64_t kBatch = 2, kChannels = 3, kArea = 21;
  const auto x = wild_floats(kBatch * kChannels * kArea, 1), table = random_floats(2 * kChannels, 2);
  for (const Isa isa : fusing_isas()) {
    std::vector<float> want(x.size()), y(x.size());
    for (int64_t i = 0; i < kBatch * kChannels; ++i) {
      const auto c = static_cast<size_t>(i % kChannels);
      kernels::affine_kernels(isa).scalar(x.data() + i * kArea, want.data() + i * kArea, kArea, table[c],
                                          table[kChannels + c]);
    }
    const cuda::AffineParams p{x.data(), table.data(), y.data(), kBatch, kChannels, kArea};
    cuda_on_host::launch(cuda::Kernel::affine, {.blocks = {2}, .threads = {32}}, &p);
    CHECK(same_values(y.data(), want.data(), want.size(), "affine"));
  }
}

}  // namespace
