// The product of double: near a sum in long double on every tier, and its bits those of a row wherever it stands.
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/cpu/gemm64/gemm64.h"
#include "platform/aligned_alloc.h"
#include "platform/thread_pool.h"
#include "support.h"

using namespace inferkit;
using namespace inferkit::kernels;
using namespace inferkit::testing;

namespace {

constexpr double kMark = -12345.5;

std::vector<double> random_doubles(size_t n, uint32_t seed) {
  std::mt19937_64 engine(seed);
  std::uniform_real_distribution<double> draw(-1, 1);
  std::vector<double> out(n);
  for (double& v : out) v = draw(engine);
  return out;
}

bool same_bits(double a, double b) { return std::bit_cast<uint64_t>(a) == std::bit_cast<uint64_t>(b); }

/// One random product with padded rows, B plain and packed.
struct Problem {
  int64_t m, n, k, lda, ldb, ldc;
  BiasKind bias_kind;
  std::vector<double> a, b, bias;
  AlignedArray<double> packed;

  Problem(int64_t rows, int64_t columns, int64_t depth, uint32_t seed)
      : m(rows),
        n(columns),
        k(depth),
        lda(k + seed % 3),
        ldb(n + seed % 2),
        ldc(n + seed % 5),
        bias_kind(static_cast<BiasKind>(seed % 3)),
        a(random_doubles(static_cast<size_t>(m * lda), seed)),
        b(random_doubles(static_cast<size_t>(k * ldb), seed + 1)),
        bias(random_doubles(static_cast<size_t>(std::max(m, n)), seed + 2)),
        packed(make_aligned<double>(packed_b64_elements(k, n))) {
    pack_b(b.data(), ldb, k, n, packed.get());
  }

  GemmArgs64 args(double* c) const {
    GemmArgs64 g;
    g.m = m, g.n = n, g.k = k;
    g.a = a.data(), g.lda = lda;
    use_packed_b(g, packed.get());
    g.c = c, g.ldc = ldc;
    g.bias = bias_kind == BiasKind::kNone ? nullptr : bias.data(), g.bias_kind = bias_kind;
    return g;
  }
  /// C with eight marked elements on either side.
  std::vector<double> room() const { return std::vector<double>(static_cast<size_t>(m * ldc) + 16, kMark); }

  bool close(const std::vector<double>& c) const {
    bool good = true;
    for (int64_t at = 0; at < static_cast<int64_t>(c.size()); ++at) {
      const int64_t i = (at - 8) / std::max<int64_t>(ldc, 1), j = (at - 8) % std::max<int64_t>(ldc, 1);
      if (at < 8 || i >= m || j >= n) {
        good = good && same_bits(c[static_cast<size_t>(at)], kMark);
        continue;
      }
      long double sum = 0, size = 0;
      const auto add = [&](long double v) { sum += v, size += std::fabs(v); };
      for (int64_t l = 0; l < k; ++l) {
        add(static_cast<long double>(a[static_cast<size_t>(i * lda + l)]) * b[static_cast<size_t>(l * ldb + j)]);
      }
      if (bias_kind == BiasKind::kPerRow) add(bias[static_cast<size_t>(i)]);
      if (bias_kind == BiasKind::kPerColumn) add(bias[static_cast<size_t>(j)]);
      const long double bound = 2 * std::sqrt(static_cast<long double>(k + 2)) * 0x1p-53L * size;
      good = good && std::fabs(c[static_cast<size_t>(at)] - sum) <= bound;
    }
    return good;
  }
};

void check(Isa isa, int64_t m, int64_t n, int64_t k, uint32_t seed) {
  const Problem p(m, n, k, seed);
  std::vector<double> c = p.room();
  gemm64_kernels(isa).gemm(p.args(c.data() + 8));
  if (!p.close(c)) {
    fail(__FILE__, __LINE__,
         "gemm64 " + std::string(isa_name(isa)) + " m=" + std::to_string(m) + " n=" + std::to_string(n) +
             " k=" + std::to_string(k) + " seed=" + std::to_string(seed));
  }
}

}  // namespace

TEST(gemm64_close_to_long_double_small) {
  for (const Isa isa : available_isas()) {
    uint32_t seed = 0;
    for (int64_t m = 1; m <= 26; ++m) {
      for (const int64_t n : {1, 5, 8, 9, 16, 20, 24, 31, 32, 33, 64, 65, 130}) {
        for (const int64_t k : {1, 3, 31, 37, 64}) check(isa, m, n, k, ++seed);
      }
    }
  }
}

TEST(gemm64_close_to_long_double_large) {
  for (const Isa isa : available_isas()) {
    check(isa, 40, 100, 1700, 0);  // blocks of K go on from C
    check(isa, 13, 700, 513, 1);   // blocks of panels
    check(isa, 1, 300, 2000, 2);
    check(isa, 90, 17, 385, 3);
  }
}

TEST(gemm64_of_nothing) {
  for (const Isa isa : available_isas()) {
    for (const auto& [m, n, k] : {std::array<int64_t, 3>{0, 3, 4}, {3, 0, 4}, {2, 3, 0}}) {
      for (uint32_t seed = 0; seed < 3; ++seed) check(isa, m, n, k, seed);
    }
  }
}

TEST(gemm64_nan_and_infinity_reach_the_answer) {
  for (const Isa isa : available_isas()) {
    Problem p(15, 20, 40, 0);
    p.a[static_cast<size_t>(2 * p.lda + 7)] = std::numeric_limits<double>::quiet_NaN();
    p.a[static_cast<size_t>(13 * p.lda + 9)] = std::numeric_limits<double>::infinity();
    std::vector<double> c = p.room();
    gemm64_kernels(isa).gemm(p.args(c.data() + 8));
    for (int64_t j = 0; j < p.n; ++j) {
      CHECK(std::isnan(c[static_cast<size_t>(8 + 2 * p.ldc + j)]));
      CHECK(std::isinf(c[static_cast<size_t>(8 + 13 * p.ldc + j)]));
      CHECK(std::isfinite(c[static_cast<size_t>(8 + 12 * p.ldc + j)]));
    }
  }
}

// 64 products of 1/16 beside a bias of 2^49, whose last place is 1/8: added to it one by one they would all be lost.
TEST(gemm64_small_sums_beside_a_large_bias) {
  for (const Isa isa : available_isas()) {
    for (const int64_t m : {1, 2, 30}) {
      Problem p(m, 20, 64, 1);
      std::fill(p.a.begin(), p.a.end(), 0.25);
      std::fill(p.packed.get(), p.packed.get() + packed_b64_elements(64, 20), 0.25);
      std::fill(p.bias.begin(), p.bias.end(), 0x1p50);
      p.bias_kind = BiasKind::kPerColumn;
      std::vector<double> c = p.room();
      gemm64_kernels(isa).gemm(p.args(c.data() + 8));
      CHECK_EQ(c[8], 0x1p50 + 4.0);
    }
  }
}

TEST(gemm64_packs_transposed_as_plain) {
  for (const int64_t n : {1, 7, 8, 17, 32}) {
    for (const int64_t k : {1, 2, 5, 33}) {
      const auto b = random_doubles(static_cast<size_t>(k * n), 9);
      std::vector<double> turned(b.size());
      for (int64_t i = 0; i < k; ++i) {
        for (int64_t j = 0; j < n; ++j) turned[static_cast<size_t>(j * k + i)] = b[static_cast<size_t>(i * n + j)];
      }
      std::vector<double> plain(packed_b64_elements(k, n) + 1, kMark), other = plain;
      pack_b(b.data(), n, k, n, plain.data());
      pack_b_transposed(turned.data(), k, k, n, other.data());
      CHECK(plain == other);
      CHECK_EQ(plain.back(), kMark);
      for (int64_t p = 0; p * 8 < n; ++p) {
        for (int64_t i = 0; i < k; ++i) {
          for (int64_t j = 0; j < 8; ++j) {
            const double want = p * 8 + j < n ? b[static_cast<size_t>(i * n + p * 8 + j)] : 0.0;
            CHECK_EQ(plain[static_cast<size_t>((p * k + i) * 8 + j)], want);
          }
        }
      }
    }
  }
}

// The bits of a row are those that it has alone, in place or packed, on AVX2 and AVX-512, on any number of threads.
TEST(gemm64_bits_depend_on_nothing_else) {
  ThreadPool pool(4);
  for (const auto& size : {std::pair<int64_t, int64_t>{40, 37}, {256, 700}, {24, 1500}, {1000, 130}}) {
    const int64_t m = 67, n = size.first, k = size.second;  // clang 14 lends no bindings to lambdas
    Problem p(m, n, k, 5);
    p.bias_kind = BiasKind::kPerColumn;
    const GemmArgs64 all = p.args(nullptr);
    std::vector<double> alone(static_cast<size_t>(m * p.ldc));
    for (int64_t row = 0; row < m; ++row) {
      GemmArgs64 g = all;
      g.m = 1, g.a += row * p.lda, g.c = alone.data() + row * p.ldc;
      gemm_f64(g);
    }
    const auto equal = [&](const std::vector<double>& c) {
      for (int64_t row = 0; row < m; ++row) {
        for (int64_t j = 0; j < n; ++j) {
          const auto at = static_cast<size_t>(row * p.ldc + j);
          if (!same_bits(c[at], alone[at])) return false;
        }
      }
      return true;
    };
    std::vector<double> c(alone.size());
    for (const Isa isa : available_isas()) {
      if (isa == Isa::kBaseline && active_isa() != Isa::kBaseline) continue;  // without FMA
      std::fill(c.begin(), c.end(), 0.0);
      GemmArgs64 g = all;
      g.c = c.data();
      gemm64_kernels(isa).gemm(g);
      CHECK(equal(c));
      if (n % 8 == 0) {
        g.b = p.b.data(), g.b_k_stride = p.ldb, g.b_panel_stride = 8;
        std::fill(c.begin(), c.end(), 0.0);
        gemm64_kernels(isa).gemm(g);
        CHECK(equal(c));
      }
    }
    for (int threads = 1; threads <= 4; ++threads) {
      std::fill(c.begin(), c.end(), 0.0);
      GemmArgs64 g = all;
      g.c = c.data();
      gemm_f64_parallel(g, &pool, threads);
      CHECK(equal(c));
    }
    GemmBatch batch{m, 1, n, k};
    std::fill(c.begin(), c.end(), 0.0);
    gemm_f64_batch(
        batch,
        [&](int64_t i, int64_t) {
          GemmArgs64 g = all;
          g.m = 1, g.a += i * p.lda, g.c = c.data() + i * p.ldc;
          return g;
        },
        &pool, 4);
    CHECK(equal(c));
  }
}
