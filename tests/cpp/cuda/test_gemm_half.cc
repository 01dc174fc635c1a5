// Products of halves on the host: what surrounds the tensor cores, to the bit, and what bf16 and float16 lose. What the
// emulator takes a product of fragments for is in tests/cuda_on_host.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/dtype.h"
#include "kernels/cpu/gemm_bf16/gemm_bf16.h"
#include "kernels/cpu/vmath/vmath.h"
#include "support.h"

using namespace inferkit;
using namespace inferkit::testing;
namespace cuda = inferkit::kernels::cuda;
using cuda::Kernel;
using kernels::Unary;

namespace {

enum class Type { kBf16, kF16 };
constexpr Type kTypes[] = {Type::kBf16, Type::kF16};
const char* name_of(Type type) { return type == Type::kBf16 ? "bf16" : "f16"; }

uint16_t bits_of(Type type, float v) {
  if (std::fabs(v) < std::numeric_limits<float>::min()) v = std::copysign(0.0f, v);
  return type == Type::kBf16 ? to_bfloat16(v).bits : to_half(v).bits;
}
float rounded(Type type, float v) {
  const uint16_t bits = bits_of(type, v);
  return type == Type::kBf16 ? to_float(BFloat16{bits}) : to_float(Half{bits});
}

/// Where B is constant, it comes in pairs.
enum class Right { kRows, kColumns, kPairs };
constexpr Right kRights[] = {Right::kRows, Right::kColumns, Right::kPairs};

struct Product {
  int64_t m, n, k;
  Unary act = Unary::kIdentity;
  bool bias = true;
};

/// One problem with all that a kernel may read of it; B as [k, n], as [n, k], and in pairs.
struct Problem {
  Product s;
  std::vector<float> a, b, across, bias;

  explicit Problem(const Product& product) : s(product) {
    a = random_floats(static_cast<size_t>(s.m * s.k), 1);
    b = random_floats(static_cast<size_t>(s.k * s.n), 2);
    bias = random_floats(static_cast<size_t>(s.n), 3);
    turn();
  }
  void turn() {
    across.resize(b.size());
    for (int64_t k = 0; k < s.k; ++k) {
      for (int64_t n = 0; n < s.n; ++n) {
        across[static_cast<size_t>(n * s.k + k)] = b[static_cast<size_t>(k * s.n + n)];
      }
    }
  }
  int64_t pairs_row() const { return (s.n + 3) / 4 * 4; }
  std::vector<uint32_t> pairs(Type type) const {
    std::vector<uint32_t> out(static_cast<size_t>((s.k + 1) / 2 * pairs_row()), 0);
    for (int64_t k = 0; k < s.k; ++k) {
      for (int64_t n = 0; n < s.n; ++n) {
        out[static_cast<size_t>(k / 2 * pairs_row() + n)] |=
            static_cast<uint32_t>(bits_of(type, b[static_cast<size_t>(k * s.n + n)])) << (k % 2 * 16);
      }
    }
    return out;
  }
  float at_b(int64_t k, int64_t n) const { return b[static_cast<size_t>(k * s.n + n)]; }
};

/// Chunks from zero, each up to a whole fragment; of each pair of terms the odd one first.
float by_the_rule(const Problem& p, Type type, int64_t row, int64_t column, int64_t chunk) {
  const auto term = [&](int64_t k) {
    if (k >= p.s.k) return std::pair{0.0f, 0.0f};
    return std::pair{rounded(type, p.a[static_cast<size_t>(row * p.s.k + k)]), rounded(type, p.at_b(k, column))};
  };
  float total = 0;
  for (int64_t first = 0; first < p.s.k; first += chunk) {
    float sum = 0;
    const int64_t terms = std::min(chunk, p.s.k - first);
    for (int64_t k = first; k < first + (terms + 15) / 16 * 16; k += 2) {
      for (const int64_t at : {k + 1, k}) {
        const auto [a, b] = term(at);
        sum = std::fma(a, b, sum);
      }
    }
    total = first == 0 ? sum : total + sum;
  }
  return total;
}
std::vector<float> by_the_rule(const Problem& p, Type type, Isa isa, int64_t chunk) {
  std::vector<float> out;
  for (int64_t row = 0; row < p.s.m; ++row) {
    for (int64_t column = 0; column < p.s.n; ++column) {
      const float sum = by_the_rule(p, type, row, column, chunk);
      out.push_back(p.s.bias ? sum + p.bias[static_cast<size_t>(column)] : sum);
    }
  }
  if (p.s.act != Unary::kIdentity) {
    kernels::vmath_kernels(isa).unary[static_cast<size_t>(p.s.act)](out.data(), out.data(),
                                                                    static_cast<int64_t>(out.size()), 0.25f, 0.5f);
  }
  return out;
}

cuda::HalfGemmParams params_of(const Problem& p, Right right, const std::vector<uint32_t>& pairs, std::vector<float>& c,
                               int64_t chunk) {
  cuda::HalfGemmParams h{};
  h.of.a = p.a.data();
  h.of.c = c.data();
  h.of.bias = p.s.bias ? p.bias.data() : nullptr;
  h.of.m = p.s.m;
  h.of.n = p.s.n;
  h.of.k = h.of.a_row = p.s.k;
  h.of.chunk = chunk;
  h.of.batch = {1, {1}, {{0}, {0}}, 1};
  h.of.alpha = 0.25f;
  h.of.beta = 0.5f;
  h.of.act = p.s.act;
  h.of.b = right == Right::kRows ? p.b.data() : right == Right::kColumns ? p.across.data() : nullptr;
  h.of.b_row = right == Right::kRows ? p.s.n : 1;
  h.of.b_col = right == Right::kRows ? 1 : p.s.k;
  if (right == Right::kPairs) {
    h.pairs = pairs.data();
    h.pairs_row = p.pairs_row();
  }
  return h;
}

enum class Way { kWide, kTiled, kSliced };
constexpr Way kWays[] = {Way::kWide, Way::kTiled, Way::kSliced};
constexpr const char* kNames[] = {"wide", "tiled", "sliced"};
const char* name_of(Way way) { return kNames[static_cast<size_t>(way)]; }

unsigned blocks(int64_t n, int64_t each) { return static_cast<unsigned>((n + each - 1) / each); }

/// As csrc/engine/cuda/product.cc launches it.
void run(Way way, Type type, const cuda::HalfGemmParams& h, cuda_on_host::Grid grid = {}) {
  const bool bf16 = type == Type::kBf16;
  const auto cut = [&](int64_t rows, int64_t columns) {
    grid.blocks.x = blocks(h.of.n, columns);
    grid.blocks.y = blocks(h.of.m, rows);
  };
  switch (way) {
    case Way::kWide:
      cut(cuda::kWideTile, cuda::kWideTile);
      grid.threads = {cuda::kTileThreads};
      grid.shared_bytes = cuda::kHalfTileShared<cuda::kWideTile>;
      return cuda_on_host::launch(bf16 ? Kernel::gemm_bf16_wide : Kernel::gemm_f16_wide, grid, &h);
    case Way::kTiled:
      cut(cuda::kTile, cuda::kTile);
      grid.threads = {cuda::kTileThreads};
      grid.shared_bytes = cuda::kHalfTileShared<cuda::kTile>;
      return cuda_on_host::launch(bf16 ? Kernel::gemm_bf16_tiled : Kernel::gemm_f16_tiled, grid, &h);
    case Way::kSliced: {
      const int slices = std::clamp(static_cast<int>(blocks(h.of.k, h.of.chunk)), 1, cuda::kMostSlices);
      cut(cuda::kSliceRows, cuda::kSliceColumns);
      grid.threads = {static_cast<unsigned>(slices) * 32};
      grid.shared_bytes = cuda::half_slice_shared(slices);
      return cuda_on_host::launch(bf16 ? Kernel::gemm_bf16_sliced : Kernel::gemm_f16_sliced, grid, &h);
    }
  }
}

int64_t chunk_of(const Product& s) { return cuda::half_chunk(kernels::sum_chunk(s.k, s.n)); }

TEST(products_of_halves_are_the_definition) {
  const FloatEnvironment ours;
  const Product products[] = {{1, 1, 1},
                              {3, 33, 37, Unary::kRelu},
                              {2, 70, 130, Unary::kGelu},
                              {65, 66, 31, Unary::kSigmoid, false},
                              {4, 16, 257, Unary::kTanh},
                              {5, 40, 700, Unary::kClip},
                              {70, 5, 113, Unary::kIdentity, false},
                              {2, 20, 2600},  // more chunks than warps
                              {17, 64, 48},   // quads of neighbours, all of them there; a step of which half is there
                              {129, 132, 20, Unary::kRelu}};
  const auto isas = fusing_isas();
  if (isas.empty()) return;
  for (const Product& s : products) {
    const Problem p(s);
    for (const int64_t chunk : {chunk_of(s), cuda::half_chunk(kernels::computed_chunk(s.k)), int64_t{48}}) {
      for (const Type type : kTypes) {
        const auto want = by_the_rule(p, type, isas.front(), chunk);
        const auto pairs = p.pairs(type);
        for (const Right right : kRights) {
          for (const Way way : kWays) {
            for (const uint64_t seed : kSeeds) {
              if (seed > 1 && (type == Type::kF16 || s.m * s.k > 3000)) continue;
              std::vector<float> got(want.size(), NAN);
              run(way, type, params_of(p, right, pairs, got, chunk), {.seed = seed});
              const std::string what =
                  cat(name_of(way), " ", name_of(type), ", ", s.m, "x", s.n, "x", s.k, " in chunks of ", chunk,
                      ", right side ", static_cast<int>(right), ", seed ", seed);
              if (!same_values(got.data(), want.data(), want.size(), what)) return;
            }
          }
        }
      }
    }
  }
}

// Here the emulator adds as the CPU does; a device need not.
TEST(products_of_bf16_have_the_bits_of_the_cpu_on_the_host) {
  const FloatEnvironment ours;
  for (const Isa isa : fusing_isas()) {
    const auto& table = kernels::gemm_bf16_kernels(isa, {});
    for (const Product& s : {Product{9, 40, 300, Unary::kRelu}, {33, 17, 64, Unary::kTanh}, {1, 100, 1001}}) {
      const Problem p(s);
      std::vector<uint32_t> packed(kernels::packed_b_bf16_elements(s.k, s.n));
      table.pack_b(p.b.data(), s.n, s.k, s.n, packed.data());
      std::vector<float> want(static_cast<size_t>(s.m * s.n)), got(want.size());
      kernels::GemmArgsBf16 g;
      g.m = s.m, g.n = s.n, g.k = s.k, g.a = p.a.data(), g.lda = s.k, g.c = want.data(), g.ldc = s.n;
      kernels::use_packed_b(g, packed.data());
      g.bias = p.bias.data();
      g.bias_kind = kernels::BiasKind::kPerColumn;
      g.act = s.act;
      g.k_chunk = chunk_of(s);
      table.gemm(g);
      const auto pairs = p.pairs(Type::kBf16);
      for (const Way way : kWays) {
        run(way, Type::kBf16, params_of(p, Right::kPairs, pairs, got, chunk_of(s)));
        CHECK(same_values(got.data(), want.data(), want.size(), cat(name_of(way), " ", s.k, ", ", isa_name(isa))));
      }
    }
  }
}

// Both operands are rounded by half of the last place at most: 2^-9 of bf16's value, 2^-12 of float16's.
TEST(products_of_halves_err_as_their_format_does) {
  const FloatEnvironment ours;
  const Problem p({20, 30, 500, Unary::kIdentity, false});
  for (const Type type : kTypes) {
    const double unit = type == Type::kBf16 ? 0x1p-8 : 0x1p-11;
    std::vector<float> got(static_cast<size_t>(p.s.m * p.s.n));
    run(Way::kTiled, type, params_of(p, Right::kRows, {}, got, chunk_of(p.s)));
    double worst = 0, size = 0;
    for (int64_t row = 0; row < p.s.m; ++row) {
      for (int64_t column = 0; column < p.s.n; ++column) {
        double exact = 0, sum = 0;
        for (int64_t k = 0; k < p.s.k; ++k) {
          const double term = static_cast<double>(p.a[static_cast<size_t>(row * p.s.k + k)]) * p.at_b(k, column);
          exact += term;
          sum += std::fabs(term);
        }
        const double error = std::fabs(static_cast<double>(got[static_cast<size_t>(row * p.s.n + column)]) - exact);
        CHECK(error <= (unit + unit * unit) * sum + 1e-6 * sum);
        worst = std::max(worst, error);
        size = std::max(size, sum);
      }
    }
    CHECK(worst > 0.002 * unit * size);  // and it is not float32
  }
}

// What a row gives depends neither on the rows beside it nor on the tile: of all ways and numbers of rows.
TEST(a_row_of_halves_is_the_same_alone_and_in_a_batch) {
  const FloatEnvironment ours;
  const Problem p({150, 140, 100, Unary::kGelu});
  const auto pairs = p.pairs(Type::kBf16);
  std::vector<float> whole(static_cast<size_t>(p.s.m * p.s.n));
  run(Way::kWide, Type::kBf16, params_of(p, Right::kPairs, pairs, whole, chunk_of(p.s)));
  for (const int64_t rows : {1, 5, 64, 65}) {
    for (const int64_t first : {int64_t{0}, int64_t{7}, p.s.m - rows}) {
      for (const Way way : kWays) {
        std::vector<float> part(static_cast<size_t>(rows * p.s.n), NAN);
        auto h = params_of(p, Right::kPairs, pairs, part, chunk_of(p.s));
        h.of.a += first * p.s.k;
        h.of.m = rows;
        run(way, Type::kBf16, h, {.seed = 5});
        CHECK(same_values(part.data(), whole.data() + first * p.s.n, part.size(), cat(name_of(way), " from ", first)));
      }
    }
  }
}

TEST(halves_of_all_sizes_and_no_numbers_come_out_as_defined) {
  const FloatEnvironment ours;
  Problem p({3, 35, 65, Unary::kIdentity});
  p.a = wild_floats(p.a.size(), 5);
  p.b = wild_floats(p.b.size(), 6);
  p.bias = wild_floats(p.bias.size(), 7);
  p.turn();
  const auto isas = fusing_isas();
  if (isas.empty()) return;
  for (const Type type : kTypes) {
    const auto want = by_the_rule(p, type, isas.front(), chunk_of(p.s));
    const auto pairs = p.pairs(type);
    for (const Right right : kRights) {
      for (const Way way : kWays) {
        std::vector<float> got(want.size());
        run(way, type, params_of(p, right, pairs, got, chunk_of(p.s)));
        CHECK(same_values(got.data(), want.data(), want.size(), cat(name_of(way), " ", name_of(type))));
      }
    }
  }
}

// Most wild sums are no numbers: one product for each number, and nothing beside it.
TEST(every_float_is_rounded_as_its_format_says) {
  const FloatEnvironment ours;
  std::vector<float> values = wild_floats(512, 9);
  for (const float v : {65503.9f, 65504.0f, 65519.9f, 65520.0f, 0x1p-24f, 0x1.8p-25f, 0x1p-25f, 0x1.00fp-14f,
                        1.00390625f, 1.01171875f, 0x1.fffffep-127f * 2, 3.4e38f, -3.4e38f, 0x1.fep127f, 0x1.ffp127f}) {
    values.push_back(v);
  }
  Problem p({static_cast<int64_t>(values.size()), 4, 1, Unary::kIdentity, false});
  p.a = values;
  p.b = {1, 1, 1, 1};
  p.turn();
  for (const Type type : kTypes) {
    std::vector<float> got(values.size() * 4);
    run(Way::kSliced, type, params_of(p, Right::kRows, {}, got, 16));
    for (size_t i = 0; i < values.size(); ++i) {
      // a product of zero and the sum that begins with zero is zero, whatever its sign
      const float want = rounded(type, values[i]) + 0.0f;
      CHECK(same_values(&got[4 * i], &want, 1, cat(name_of(type), " of ", values[i])));
    }
  }
}

// Operands that begin anywhere, and lines whose lengths four does not divide: quads are read one by one.
TEST(operands_of_halves_may_begin_anywhere) {
  const FloatEnvironment ours;
  for (const int64_t shift : {1, 2, 3}) {
    const Product s{18, 36, 40, Unary::kIdentity, false};
    Problem p(s);
    std::vector<float> want(static_cast<size_t>(s.m * s.n)), got(want.size());
    run(Way::kTiled, Type::kBf16, params_of(p, Right::kRows, {}, want, 32));
    p.a.insert(p.a.begin(), static_cast<size_t>(shift), NAN);
    p.b.insert(p.b.begin(), static_cast<size_t>(shift), NAN);
    for (const Way way : kWays) {
      auto h = params_of(p, Right::kRows, {}, got, 32);
      h.of.a += shift;
      h.of.b += shift;
      run(way, Type::kBf16, h);
      CHECK(same_values(got.data(), want.data(), want.size(), cat(name_of(way), " from ", shift)));
    }
  }
}

TEST(a_sum_of_no_halves_is_zero) {
  const FloatEnvironment ours;
  const Problem p({9, 5, 0, Unary::kIdentity, false});
  for (const Way way : kWays) {
    std::vector<float> got(static_cast<size_t>(p.s.m * p.s.n), NAN);
    run(way, Type::kBf16, params_of(p, Right::kRows, {}, got, 16));
    for (const float v : got) CHECK_EQ(v, 0.0f);
  }
}

TEST(a_product_of_halves_without_every_other_barrier_is_wrong_with_every_seed) {
  const FloatEnvironment ours;
  const Problem p({8, 32, 2600, Unary::kIdentity, false});
  std::vector<float> want(static_cast<size_t>(p.s.m * p.s.n)), c(want.size());
  run(Way::kTiled, Type::kBf16, params_of(p, Right::kRows, {}, want, chunk_of(p.s)));
  for (const Way way : kWays) {
    for (const unsigned drop : {0u, 1u}) {
      for (uint64_t seed = 1; seed <= 5; ++seed) {
        std::ranges::fill(c, 0.0f);
        run(way, Type::kBf16, params_of(p, Right::kRows, {}, c, chunk_of(p.s)),
            {.seed = seed, .drop_every = 2, .drop = drop});
        if (same(c.data(), want.data(), want.size())) {
          fail(__FILE__, __LINE__, cat(name_of(way), " without barrier ", drop, " is right for seed ", seed));
        }
      }
    }
  }
}

TEST(a_batch_of_halves_is_its_products_one_by_one) {
  const FloatEnvironment ours;
  const Product s{3, 20, 40, Unary::kIdentity, false};
  constexpr int64_t kCount = 4;
  const auto one = static_cast<size_t>(s.m * s.n), of_a = static_cast<size_t>(s.m * s.k);
  std::vector<Problem> each;
  std::vector<float> a, b;
  std::vector<uint32_t> pairs;
  for (uint32_t i = 0; i < 2; ++i) {
    Problem p(s);
    p.b = random_floats(p.b.size(), 10 + i);
    b.insert(b.end(), p.b.begin(), p.b.end());
    const auto mine = p.pairs(Type::kBf16);
    pairs.insert(pairs.end(), mine.begin(), mine.end());
    each.push_back(p);
  }
  a = random_floats(kCount * of_a, 1);
  for (const Way way : kWays) {
    for (const Right right : {Right::kRows, Right::kPairs}) {
      std::vector<float> all(kCount * one, NAN);
      auto h = params_of(each[0], right, pairs, all, 32);
      h.of.a = a.data();
      if (right == Right::kRows) h.of.b = b.data();
      const int64_t of_b = right == Right::kRows ? s.k * s.n : s.k / 2 * each[0].pairs_row();
      h.of.batch = {kCount, {2, 2}, {{2 * s.m * s.k, s.m * s.k}, {0, of_b}}, 2};  // B repeats along the first dimension
      run(way, Type::kBf16, h, {.blocks = {1, 1, 3}});                            // fewer than products
      for (size_t i = 0; i < kCount; ++i) {
        Problem& p = each[i % 2];
        p.a.assign(a.begin() + static_cast<std::ptrdiff_t>(i * of_a),
                   a.begin() + static_cast<std::ptrdiff_t>((i + 1) * of_a));
        std::vector<float> want(one, NAN);
        run(Way::kTiled, Type::kBf16, params_of(p, Right::kRows, {}, want, 32), {.seed = 9});
        CHECK(same_values(all.data() + i * one, want.data(), one, cat(name_of(way), " ", i)));
      }
    }
  }
}

}  // namespace
