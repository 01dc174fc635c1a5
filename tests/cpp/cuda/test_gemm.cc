// Products on the host, to the bit as the CPU's tiers.
#include <algorithm>

#include "kernels/cpu/gemm/gemm.h"
#include "support.h"

using namespace inferkit;
using namespace inferkit::testing;
namespace cuda = inferkit::kernels::cuda;
using kernels::Unary;

namespace {

struct Product {
  int64_t m, n, k;
  Unary act = Unary::kIdentity;
  bool bias = true, transposed = false;
};

std::vector<float> on_cpu(const Product& s, Isa isa, const std::vector<float>& a, const std::vector<float>& b,
                          const std::vector<float>& bias, int64_t chunk) {
  const auto& table = kernels::gemm_kernels(isa);
  std::vector<float> packed(kernels::packed_b_elements(s.k, s.n)), c(static_cast<size_t>(s.m * s.n));
  if (s.transposed)
    table.pack_b_transposed(b.data(), s.k, s.k, s.n, packed.data());
  else
    table.pack_b(b.data(), s.n, s.k, s.n, packed.data());
  kernels::GemmArgs g;
  g.m = s.m;
  g.n = s.n;
  g.k = s.k;
  g.a = a.data();
  g.lda = s.k;
  kernels::use_packed_b(g, packed.data());
  g.c = c.data();
  g.ldc = s.n;
  if (s.bias) {
    g.bias = bias.data();
    g.bias_kind = kernels::BiasKind::kPerColumn;
  }
  g.act = s.act;
  g.act_alpha = 0.25f;
  g.act_beta = 0.5f;
  g.k_chunk = chunk;
  table.gemm(g);
  return c;
}

cuda::GemmParams params_of(const Product& s, const std::vector<float>& a, const std::vector<float>& b,
                           const std::vector<float>& bias, std::vector<float>& c, int64_t chunk) {
  cuda::GemmParams p{};
  p.a = a.data();
  p.b = b.data();
  p.c = c.data();
  p.bias = s.bias ? bias.data() : nullptr;
  p.m = s.m;
  p.n = s.n;
  p.k = s.k;
  p.a_row = s.k;
  p.b_row = s.transposed ? 1 : s.n;
  p.b_col = s.transposed ? s.k : 1;
  p.chunk = chunk;
  p.batch = {1, {1}, {{0}, {0}}, 1};
  p.alpha = 0.25f;
  p.beta = 0.5f;
  p.act = s.act;
  return p;
}

unsigned blocks(int64_t n, int64_t each) { return static_cast<unsigned>((n + each - 1) / each); }

enum class Way { kWide, kTiled, kStrips1, kStrips4, kStrips8, kStrips16 };
constexpr Way kWays[] = {Way::kWide, Way::kTiled, Way::kStrips1, Way::kStrips4, Way::kStrips8, Way::kStrips16};
constexpr const char* kNames[] = {"wide", "tiled", "strips of 1", "strips of 4", "strips of 8", "strips of 16"};
const char* name_of(Way way) { return kNames[static_cast<size_t>(way)]; }

/// As csrc/engine/cuda/product.cc launches it; `grid` has what else the emulator is to do. Of several products, a block
/// makes all, or those that z of the grid leaves it.
void run(Way way, const cuda::GemmParams& p, cuda_on_host::Grid grid = {}) {
  const auto cut = [&](int64_t rows, int64_t columns) {
    grid.blocks.x = blocks(p.n, columns);
    grid.blocks.y = blocks(p.m, rows);
  };
  const auto tiles = [&](cuda::Kernel kernel, int side) {
    cut(side, side);
    grid.threads = {cuda::kTileThreads};
    grid.shared_bytes = cuda::tile_shared(side);
    cuda_on_host::launch(kernel, grid, &p);
  };
  const auto strips = [&](cuda::Kernel kernel, int rows) {
    const int slices = std::clamp(static_cast<int>(blocks(p.k, p.chunk)), 1, cuda::kMostSlices);
    cut(rows, cuda::kStripColumns);
    grid.threads = {static_cast<unsigned>(slices) * 32};
    grid.shared_bytes = cuda::strip_shared(slices, rows);
    cuda_on_host::launch(kernel, grid, &p);
  };
  switch (way) {
    case Way::kWide:
      return tiles(cuda::Kernel::gemm_wide, cuda::kWideTile);
    case Way::kTiled:
      return tiles(cuda::Kernel::gemm_tiled, cuda::kTile);
    case Way::kStrips1:
      return strips(cuda::Kernel::gemm_strips_1, 1);
    case Way::kStrips4:
      return strips(cuda::Kernel::gemm_strips_4, 4);
    case Way::kStrips8:
      return strips(cuda::Kernel::gemm_strips_8, 8);
    case Way::kStrips16:
      return strips(cuda::Kernel::gemm_strips_16, 16);
  }
}

TEST(every_kernel_has_the_bits_of_the_tiers) {
  const FloatEnvironment ours;
  const Product products[] = {{1, 1, 1},
                              {1, 10, 64},
                              {3, 33, 37, Unary::kRelu},
                              {2, 70, 130, Unary::kGelu},
                              {65, 66, 31, Unary::kSigmoid, false},
                              {4, 16, 257, Unary::kTanh, true, true},
                              {5, 40, 1100, Unary::kClip, true},
                              {70, 5, 513, Unary::kIdentity, false, true},
                              {2, 20, 2600},  // more chunks than warps
                              {17, 64, 48},   // quads of neighbours, all of them there
                              {129, 132, 20, Unary::kRelu},
                              {33, 40, 64, Unary::kIdentity, true, true}};
  for (const Isa isa : fusing_isas()) {
    for (const Product& s : products) {
      const auto a = random_floats(static_cast<size_t>(s.m * s.k), 1),
                 b = random_floats(static_cast<size_t>(s.k * s.n), 2);
      const auto bias = random_floats(static_cast<size_t>(s.n), 3);
      for (const int64_t chunk : {kernels::sum_chunk(s.k, s.n), kernels::computed_chunk(s.k), int64_t{5}}) {
        if (chunk == 5 && s.k > 300) continue;
        const auto want = on_cpu(s, isa, a, b, bias, chunk);
        for (const uint64_t seed : kSeeds) {
          for (const Way way : kWays) {
            std::vector<float> got(want.size(), NAN);
            run(way, params_of(s, a, b, bias, got, chunk), {.seed = seed});
            const std::string what = cat(name_of(way), ", ", s.m, "x", s.n, "x", s.k, " in chunks of ", chunk, ", ",
                                         isa_name(isa), ", seed ", seed);
            if (!same_values(got.data(), want.data(), want.size(), what)) return;
          }
        }
      }
    }
  }
}

TEST(values_of_all_sizes_and_no_numbers_come_out_as_on_the_cpu) {
  const FloatEnvironment ours;
  const Product s{3, 35, 65, Unary::kRelu};
  const auto a = wild_floats(static_cast<size_t>(s.m * s.k), 5), b = wild_floats(static_cast<size_t>(s.k * s.n), 6);
  const auto bias = wild_floats(static_cast<size_t>(s.n), 7);
  for (const Isa isa : fusing_isas()) {
    const auto want = on_cpu(s, isa, a, b, bias, kernels::sum_chunk(s.k, s.n));
    for (const Way way : kWays) {
      std::vector<float> got(want.size());
      run(way, params_of(s, a, b, bias, got, kernels::sum_chunk(s.k, s.n)));
      CHECK(same_values(got.data(), want.data(), want.size(), name_of(way)));
    }
  }
}

// Operands that begin anywhere, and lines whose lengths four does not divide: quads are read one by one.
TEST(operands_may_begin_anywhere) {
  const FloatEnvironment ours;
  const Product s{18, 36, 40, Unary::kIdentity, false};
  auto a = random_floats(static_cast<size_t>(s.m * s.k) + 3, 1),
       b = random_floats(static_cast<size_t>(s.k * s.n) + 3, 2);
  for (const int64_t shift : {1, 2, 3}) {
    std::vector<float> want(static_cast<size_t>(s.m * s.n), NAN);
    auto p = params_of(s, a, b, {}, want, 20);
    p.a += shift;
    p.b += shift;
    run(Way::kStrips1, p);
    for (const Way way : kWays) {
      std::vector<float> got(want.size(), NAN);
      p.c = got.data();
      run(way, p);
      CHECK(same_values(got.data(), want.data(), want.size(), cat(name_of(way), " from ", shift)));
    }
  }
}

TEST(a_sum_of_nothing_is_zero) {
  const FloatEnvironment ours;
  const Product s{9, 5, 0, Unary::kIdentity, false};
  const std::vector<float> none(1, NAN);
  for (const Way way : kWays) {
    std::vector<float> got(static_cast<size_t>(s.m * s.n), NAN);
    run(way, params_of(s, none, none, {}, got, 1));
    for (const float v : got) CHECK_EQ(v, 0.0f);
  }
}

// Barriers stand before shared memory is written anew and before it is read.
TEST(a_product_without_every_other_barrier_is_wrong_with_every_seed) {
  const FloatEnvironment ours;
  const Product s{8, 32, 2600, Unary::kIdentity, false};
  const auto a = random_floats(static_cast<size_t>(s.m * s.k), 1), b = random_floats(static_cast<size_t>(s.k * s.n), 2);
  const auto chunk = kernels::sum_chunk(s.k, s.n);
  std::vector<float> want(static_cast<size_t>(s.m * s.n));
  run(Way::kTiled, params_of(s, a, b, {}, want, chunk));
  for (const Way way : kWays) {
    for (const unsigned drop : {0u, 1u}) {
      for (uint64_t seed = 1; seed <= 5; ++seed) {
        std::vector<float> c(want.size());
        run(way, params_of(s, a, b, {}, c, chunk), {.seed = seed, .drop_every = 2, .drop = drop});
        if (same(c.data(), want.data(), want.size())) {
          fail(__FILE__, __LINE__, cat(name_of(way), " without barrier ", drop, " is right for seed ", seed));
        }
      }
    }
  }
}

TEST(a_batch_is_its_products_one_by_one) {
  const FloatEnvironment ours;
  const Product s{3, 20, 40, Unary::kIdentity, false};
  constexpr int64_t kCount = 4;
  const auto a = random_floats(static_cast<size_t>(kCount * s.m * s.k), 1);
  const auto b = random_floats(static_cast<size_t>(2 * s.k * s.n), 2);
  const auto one = static_cast<size_t>(s.m * s.n);
  for (const Way way : kWays) {
    std::vector<float> all(kCount * one, NAN);
    auto p = params_of(s, a, b, {}, all, 20);
    p.batch = {kCount, {2, 2}, {{2 * s.m * s.k, s.m * s.k}, {0, s.k * s.n}}, 2};  // B repeats along the first dimension
    run(way, p, {.blocks = {1, 1, 3}});                                           // fewer than products
    for (int64_t i = 0; i < kCount; ++i) {
      std::vector<float> want(one, NAN);
      auto q = params_of(s, a, b, {}, want, 20);
      q.a = a.data() + i * s.m * s.k;
      q.b = b.data() + i % 2 * s.k * s.n;
      run(Way::kTiled, q, {.seed = 9});
      CHECK(same_values(all.data() + static_cast<size_t>(i) * one, want.data(), one, cat(name_of(way), " ", i)));
    }
  }
}

}  // namespace
