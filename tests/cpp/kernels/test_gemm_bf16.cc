// Products in bf16: the definition, written out with std::fma on one number at a time, is what every tier gives to the
// bit, with and without the processor's instruction for it, for any number of rows.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/dtype.h"
#include "kernels/cpu/gemm_bf16/gemm_bf16.h"
#include "platform/aligned_alloc.h"
#include "platform/float_environment.h"
#include "platform/thread_pool.h"
#include "support.h"

using namespace inferkit;
using namespace inferkit::kernels;
using namespace inferkit::testing;

namespace {

std::vector<const GemmBf16Kernels*> all_kernels() {
  std::vector<const GemmBf16Kernels*> out;
  for (const Isa isa : available_isas()) {
    const IsaFeatures all = available_features(isa), tiles = IsaFeature::kAmxBf16;
    for (const IsaFeatures features : {IsaFeatures(), all.without(tiles), all}) {
      if (const auto& one = gemm_bf16_kernels(isa, features); out.empty() || &one != out.back()) out.push_back(&one);
    }
  }
  return out;
}
std::string name_of(const GemmBf16Kernels* kernels) { return kernels->compiled_isa(); }
/// The tiles of AMX have a definition of their own.
bool has_tiles(const GemmBf16Kernels& kernels) { return name_of(&kernels) == "avx512amx"; }

/// To nearest, ties to even; subnormals count as zero.
float as_bf16(float v) {
  if (std::isnan(v)) return v;
  if (std::fabs(v) < std::numeric_limits<float>::min()) return std::copysign(0.0f, v);
  return to_float(to_bfloat16(v));
}

/// The definition: in chunks, each from zero, of each pair of K the odd element first; chunks from the first to the
/// last.
float by_the_rule(const float* a, const float* b, int64_t ldb, int64_t k, int64_t chunk) {
  const auto at = [&](int64_t i) {
    return i < k ? std::pair{as_bf16(a[i]), as_bf16(b[i * ldb])} : std::pair{0.f, 0.f};
  };
  float total = 0;
  for (int64_t first = 0; first < k; first += chunk) {
    float sum = 0;
    for (int64_t i = first; i < std::min(k, first + chunk); i += 2) {
      sum = std::fma(at(i + 1).first, at(i + 1).second, sum);
      sum = std::fma(at(i).first, at(i).second, sum);
    }
    total = first == 0 ? sum : total + sum;
  }
  return total;
}

/// That of tiles: of each 32 elements of K the even ones from zero, and the odd ones; then the sum of both, behind what
/// was summed before. In chunks of 512 elements, each from zero.
float by_tiles(const float* a, const float* b, int64_t ldb, int64_t k) {
  constexpr int64_t kChunk = 512, kTile = 32;
  float total = 0;
  for (int64_t first = 0; first < k; first += kChunk) {
    float sum = 0;
    for (int64_t tile = first; tile < std::min(k, first + kChunk); tile += kTile) {
      float apart[2] = {0, 0};
      for (int64_t i = tile; i < tile + kTile; ++i) {
        const float left = i < k ? as_bf16(a[i]) : 0, right = i < k ? as_bf16(b[i * ldb]) : 0;
        apart[i % 2] = std::fma(left, right, apart[i % 2]);
      }
      sum += apart[0] + apart[1];
    }
    total = first == 0 ? sum : total + sum;
  }
  return total;
}

struct Problem {
  int64_t m, n, k, lda, ldb, ldc;
  BiasKind bias_kind = BiasKind::kNone;
  std::vector<float> a, b, bias, residual;

  Problem(int64_t rows, int64_t columns, int64_t depth, uint32_t seed)
      : m(rows),
        n(columns),
        k(depth),
        lda(k + seed % 3),
        ldb(n + seed % 2),
        ldc(n + seed % 5),
        bias_kind(static_cast<BiasKind>(seed % 3)),
        a(random_floats(static_cast<size_t>(m * lda), seed)),
        b(random_floats(static_cast<size_t>(k * ldb), seed + 1)),
        bias(random_floats(static_cast<size_t>(std::max(m, n)), seed + 2)) {
    if (seed % 2 != 0) residual = random_floats(static_cast<size_t>(m * ldc), seed + 3);
  }

  GemmArgsBf16 args(const uint32_t* packed, float* c) const {
    GemmArgsBf16 g;
    g.m = m, g.n = n, g.k = k, g.a = a.data(), g.lda = lda, g.c = c, g.ldc = ldc;
    use_packed_b(g, packed);
    if (bias_kind != BiasKind::kNone) g.bias = bias.data();
    g.bias_kind = bias_kind;
    if (!residual.empty()) g.residual = residual.data(), g.ldr = ldc;
    return g;
  }
  AlignedArray<uint32_t> packed(const GemmBf16Kernels& kernels) const {
    auto out = make_aligned<uint32_t>(packed_b_bf16_elements(k, n));
    kernels.pack_b(b.data(), ldb, k, n, out.get());
    return out;
  }
  float wanted(int64_t i, int64_t j, bool by_tiles_of) const {
    const float *row = a.data() + i * lda, *column = b.data() + j;
    float sum =
        by_tiles_of ? by_tiles(row, column, ldb, k) : by_the_rule(row, column, ldb, k, chunk_of_pairs(sum_chunk(k, n)));
    if (bias_kind == BiasKind::kPerRow) sum += bias[static_cast<size_t>(i)];
    if (bias_kind == BiasKind::kPerColumn) sum += bias[static_cast<size_t>(j)];
    if (!residual.empty()) sum += residual[static_cast<size_t>(i * ldc + j)];
    return sum;
  }
  void check(const GemmBf16Kernels& kernels) const {
    const auto panels = packed(kernels);
    Guarded c(static_cast<size_t>(m * ldc));
    const float untouched = c[0];
    kernels.gemm(args(panels.get(), c.data()));
    int64_t wrong = 0;
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < ldc; ++j) {
        wrong += !same(c[static_cast<size_t>(i * ldc + j)], j < n ? wanted(i, j, has_tiles(kernels)) : untouched);
      }
    }
    if (wrong != 0 || !c.intact()) {
      fail(__FILE__, __LINE__,
           name_of(&kernels) + " m=" + std::to_string(m) + " n=" + std::to_string(n) + " k=" + std::to_string(k) +
               ": " + std::to_string(wrong) + " wrong");
    }
  }
};

}  // namespace

TEST(gemm_bf16_is_the_definition_small) {
  for (const auto* kernels : all_kernels()) {
    uint32_t seed = 0;
    for (int64_t m = 1; m <= 26; m += m < 14 ? 1 : 3) {
      for (const int64_t n : {1, 5, 15, 16, 17, 33, 64, 70, 130}) {
        for (const int64_t k : {1, 2, 3, 31, 33, 37, 66, 129}) Problem(m, n, k, ++seed).check(*kernels);
      }
    }
  }
}

TEST(gemm_bf16_is_the_definition_large) {
  for (const auto* kernels : all_kernels()) {
    Problem(40, 100, 3001, 0).check(*kernels);  // blocks of K go on from C
    Problem(13, 700, 1025, 1).check(*kernels);  // blocks of panels
    Problem(1, 300, 14001, 2).check(*kernels);
    Problem(90, 17, 386, 3).check(*kernels);
    Problem(27, 1300, 640, 4).check(*kernels);
  }
}

TEST(gemm_bf16_sizes_about_those_of_tiles) {
  for (const auto* kernels : all_kernels()) {
    uint32_t seed = 0;
    for (const int64_t m : {15, 16, 17, 31, 32, 33, 48, 65}) {
      for (const int64_t n : {16, 31, 33, 65, 81}) {
        for (const int64_t k : {30, 32, 34, 64, 95, 510, 512, 514, 1100}) Problem(m, n, k, ++seed).check(*kernels);
      }
    }
  }
}

TEST(gemm_bf16_of_nothing) {
  for (const auto* kernels : all_kernels()) {
    for (const auto& [m, n, k] : {std::array<int64_t, 3>{0, 3, 4}, {3, 0, 4}, {2, 3, 0}}) {
      for (uint32_t seed = 0; seed < 3; ++seed) Problem(m, n, k, seed).check(*kernels);
    }
  }
}

// VDPBF16PS and TDPBF16PS are documented in Intel's manual; this is what the processor at hand does with every kind of
// operand.
TEST(gemm_bf16_at_the_edges_of_the_formats) {
  const FloatEnvironment ours;  // subnormals are zero in the definition, too
  constexpr uint32_t kEdges[] = {0x0000, 0x8000, 0x0001, 0x807f, 0x0080, 0x8080, 0x0081, 0x1f80, 0x2000, 0x2001, 0x3f80,
                                 0xbf80, 0x5f80, 0x7f7f, 0xff7f, 0x7f80, 0xff80, 0x7fc0, 0x7fff, 0x3f81, 0xdf81};
  for (const auto* kernels : all_kernels()) {
    if (name_of(kernels) == "baseline") continue;  // rounds products outside of float's range
    std::mt19937 random(5);
    const auto draw = [&]() -> float {
      const auto r = static_cast<uint32_t>(random());
      switch (random() % 4) {
        case 0:
          return std::bit_cast<float>(r);
        case 1:
          return std::bit_cast<float>((r & 0x80ffffffu) | 0x20000000u | (r << 5 & 0x07000000u));
        case 2:
          return std::bit_cast<float>((r & 0x8007ffffu) | 0x3f000000u);
        default:
          return std::bit_cast<float>(kEdges[r % std::size(kEdges)] << 16);
      }
    };
    for (int round = 0; round < 400; ++round) {
      Problem p(1 + round % 13, 16 * (1 + round % 3), round % 8 == 7 ? 40 : 1 + round % 6, 0);
      std::ranges::generate(p.a, draw);
      std::ranges::generate(p.b, draw);
      p.check(*kernels);
    }
  }
}

TEST(gemm_bf16_rounds_as_the_format_says) {
  const FloatEnvironment ours;
  std::vector<float> x;
  for (uint64_t at = 0; at < uint64_t{1} << 32; at += 9973)
    x.push_back(std::bit_cast<float>(static_cast<uint32_t>(at)));
  for (uint32_t high = 0; high < 0x10000; high += 17) {  // ties and what is beside them
    for (const uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      x.push_back(std::bit_cast<float>(high << 16 | low));
  }
  const auto n = static_cast<int64_t>(x.size());
  for (const auto* kernels : all_kernels()) {
    std::vector<uint32_t> pairs(static_cast<size_t>((n + 1) / 2));
    kernels->pack_a(x.data(), n, 1, n, pairs.data());
    int64_t wrong = 0;
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t pair = pairs[static_cast<size_t>(i / 2)], half = i % 2 != 0 ? pair & 0xffff0000u : pair << 16;
      wrong += !same(std::bit_cast<float>(half), as_bf16(x[static_cast<size_t>(i)]));
    }
    CHECK_EQ(wrong, 0);
  }
}

TEST(gemm_bf16_every_packing_gives_the_same_pairs) {
  const auto& plain = gemm_bf16_kernels(Isa::kBaseline, {});
  for (const auto* kernels : all_kernels()) {
    for (const int64_t n : {1, 7, 16, 17, 40}) {
      for (const int64_t k : {1, 2, 15, 31, 32, 33, 64, 97}) {
        const auto x = random_floats(static_cast<size_t>(n * k), 3);
        std::vector<float> across(x.size());
        for (int64_t i = 0; i < k; ++i) {
          for (int64_t j = 0; j < n; ++j) across[static_cast<size_t>(j * k + i)] = x[static_cast<size_t>(i * n + j)];
        }
        const size_t room = packed_b_bf16_elements(k, n);
        std::vector<uint32_t> want(room), got(room), transposed(room);
        plain.pack_b(x.data(), n, k, n, want.data());
        kernels->pack_b(x.data(), n, k, n, got.data());
        kernels->pack_b_transposed(across.data(), k, k, n, transposed.data());
        CHECK(got == want);
        CHECK(transposed == want);
        for (int64_t i = 0; i < k; ++i) {
          for (int64_t j = 0; j < n; ++j) {
            const int64_t pairs = (k + 1) / 2, at = j / 16 * pairs * 16 + i / 2 * 16 + j % 16;
            const uint32_t pair = want[static_cast<size_t>(at)], half = i % 2 != 0 ? pair & 0xffff0000u : pair << 16;
            CHECK(same(std::bit_cast<float>(half), as_bf16(x[static_cast<size_t>(i * n + j)])));
          }
        }
      }
    }
  }
}

TEST(gemm_bf16_left_sides_of_pairs) {
  for (const auto* kernels : all_kernels()) {
    for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 33, 40}, {14, 70, 97}, {30, 20, 3000}}) {
      const Problem p(m, n, k, 3);
      const auto panels = p.packed(*kernels);
      std::vector<uint32_t> rows(static_cast<size_t>(m * ((k + 1) / 2)));
      kernels->pack_a(p.a.data(), p.lda, m, k, rows.data());
      std::vector<float> want(static_cast<size_t>(m * p.ldc)), got(want.size());
      kernels->gemm(p.args(panels.get(), want.data()));
      GemmArgsBf16 g = p.args(panels.get(), got.data());
      g.a = reinterpret_cast<const float*>(rows.data());
      g.lda = (k + 1) / 2;
      g.a_is_pairs = true;
      kernels->gemm(g);
      CHECK(same(got.data(), want.data(), want.size()));
    }
  }
}

TEST(gemm_bf16_residual_in_place) {
  for (const auto* kernels : all_kernels()) {
    for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 90, 20000}, {14, 150, 5000}, {30, 40, 64}}) {
      const Problem p(m, n, k, 5);
      const auto panels = p.packed(*kernels);
      std::vector<float> want(static_cast<size_t>(m * p.ldc)), got = p.residual;
      kernels->gemm(p.args(panels.get(), want.data()));
      GemmArgsBf16 g = p.args(panels.get(), got.data());
      g.residual = g.c;
      kernels->gemm(g);
      for (int64_t i = 0; i < m; ++i)
        CHECK(same(got.data() + i * p.ldc, want.data() + i * p.ldc, static_cast<size_t>(n)));
    }
  }
}

TEST(gemm_bf16_activations_are_those_of_vmath) {
  for (const auto* kernels : all_kernels()) {
    const Problem p(15, 50, 60, 6);
    const auto panels = p.packed(*kernels);
    for (const Unary act : {Unary::kRelu, Unary::kTanh, Unary::kLeakyRelu}) {
      std::vector<float> plain(static_cast<size_t>(p.m * p.ldc)), got(plain.size());
      kernels->gemm(p.args(panels.get(), plain.data()));
      GemmArgsBf16 g = p.args(panels.get(), got.data());
      g.act = act, g.act_alpha = 0.25f;
      kernels->gemm(g);
      const bool best = kernels != all_kernels().front();
      const auto& vmath = vmath_kernels(best ? Isa::kAvx2 : Isa::kBaseline);
      for (int64_t i = 0; i < p.m; ++i) {
        float* row = plain.data() + i * p.ldc;
        vmath.unary[static_cast<size_t>(act)](row, row, p.n, 0.25f, 0);
        CHECK(same(row, got.data() + i * p.ldc, static_cast<size_t>(p.n)));
      }
    }
  }
}

TEST(gemm_bf16_parts_and_threads_give_the_same_bits) {
  ThreadPool pool(3);
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{300, 700, 200}, {1, 3000, 900}, {64, 40, 3001}}) {
    const Problem p(m, n, k, 3);
    const auto panels = p.packed(gemm_bf16_kernels());
    std::vector<float> want(static_cast<size_t>(m * p.ldc)), got(want.size());
    gemm_bf16(p.args(panels.get(), want.data()));
    gemm_bf16_parallel(p.args(panels.get(), got.data()), &pool, 4);
    CHECK(same(got.data(), want.data(), want.size()));
    for (int64_t i = 0; i < m; i += 29) {
      GemmArgsBf16 one = p.args(panels.get(), got.data());
      one.m = 1;
      one.a += i * p.lda;
      if (one.residual) one.residual += i * p.ldc;
      if (one.bias_kind == BiasKind::kPerRow) one.bias += i;
      std::vector<float> alone(static_cast<size_t>(n));
      one.c = alone.data();
      gemm_bf16(one);
      CHECK(same(alone.data(), want.data() + i * p.ldc, alone.size()));
    }
  }
}

TEST(gemm_bf16_windows_are_packed_as_their_matrix) {
  uint32_t seed = 0;
  for (const auto& [width, pitch] :
       {std::array<int64_t, 2>{1, 1}, {3, 5}, {7, 9}, {15, 15}, {16, 20}, {17, 18}, {58, 60}}) {
    for (const int64_t rows : {1, 2, 5}) {
      for (const int64_t k : {1, 2, 9, 34}) {
        const int64_t pixels = width * rows, reach = 40;
        const auto image = random_floats(static_cast<size_t>(rows * pitch + reach), ++seed);
        std::mt19937 random(seed);
        std::vector<int32_t> offsets(static_cast<size_t>(k));
        for (auto& offset : offsets) offset = static_cast<int32_t>(random() % reach);
        std::vector<float> matrix(static_cast<size_t>(k * pixels));
        for (int64_t i = 0; i < k; ++i) {
          for (int64_t j = 0; j < pixels; ++j) {
            matrix[static_cast<size_t>(i * pixels + j)] =
                image[static_cast<size_t>(offsets[static_cast<size_t>(i)] + j / width * pitch + j % width)];
          }
        }
        for (const auto* kernels : all_kernels()) {
          std::vector<uint32_t> want(packed_b_bf16_elements(k, pixels)), got(want.size());
          kernels->pack_b(matrix.data(), pixels, k, pixels, want.data());
          // A copy of exactly what may be read, so that a sanitizer sees any other.
          auto exact = make_aligned<float>(image.size());
          std::ranges::copy(image, exact.get());
          kernels->pack_windows({exact.get(), offsets.data(), k, pixels, width, pitch, got.data()});
          CHECK(got == want);
        }
      }
    }
  }
}
