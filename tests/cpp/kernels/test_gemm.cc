#include "kernels/cpu/gemm/gemm.h"
#include "platform/aligned_alloc.h"
#include "support.h"

using namespace inferkit;
using namespace inferkit::kernels;
using namespace inferkit::testing;

namespace {

/// One random product, with padded rows everywhere and its answer in double.
struct Problem {
  int64_t m, n, k, lda, ldb, ldc, ldr;
  BiasKind bias_kind;
  float scale;
  bool has_residual;
  std::vector<float> a, b, bias, residual;
  AlignedArray<float> packed;

  Problem(int64_t rows, int64_t columns, int64_t depth, uint32_t seed)
      : m(rows),
        n(columns),
        k(depth),
        lda(k + seed % 3),
        ldb(n + seed % 2),
        ldc(n + seed % 5),
        ldr(n + seed % 4),
        bias_kind(static_cast<BiasKind>(seed % 3)),
        scale(seed % 7 < 3 ? 0.3f : 1.0f),
        has_residual(seed % 2),
        a(random_floats(static_cast<size_t>(m * lda), seed)),
        b(random_floats(static_cast<size_t>(k * ldb), seed + 1)),
        bias(random_floats(static_cast<size_t>(bias_kind == BiasKind::kPerRow ? m : n), seed + 2)),
        residual(random_floats(static_cast<size_t>(m * ldr), seed + 3)),
        packed(make_aligned<float>(packed_b_elements(k, n))) {}

  GemmArgs args(const GemmKernels& kernels, float* c) {
    kernels.pack_b(b.data(), ldb, k, n, packed.get());
    GemmArgs g;
    g.m = m, g.n = n, g.k = k;
    g.a = a.data(), g.lda = lda;
    use_packed_b(g, packed.get());
    g.c = c, g.ldc = ldc;
    g.bias = bias_kind == BiasKind::kNone ? nullptr : bias.data(), g.bias_kind = bias_kind;
    g.scale = scale;
    if (has_residual) g.residual = residual.data(), g.ldr = ldr;
    return g;
  }

  /// The sum for element (i, j) in double, and in *magnitude the sum of absolute values.
  double exact(int64_t i, int64_t j, double* magnitude) const {
    double sum = 0, size = 0;
    const auto add = [&](double v) { sum += v, size += std::fabs(v); };
    if (bias_kind == BiasKind::kPerRow) add(bias[static_cast<size_t>(i)]);
    if (bias_kind == BiasKind::kPerColumn) add(bias[static_cast<size_t>(j)]);
    for (int64_t l = 0; l < k; ++l) {
      add(static_cast<double>(scale) * a[static_cast<size_t>(i * lda + l)] * b[static_cast<size_t>(l * ldb + j)]);
    }
    if (has_residual) add(residual[static_cast<size_t>(i * ldr + j)]);
    *magnitude = size;
    return sum;
  }
  size_t c_elements() const { return static_cast<size_t>((m - 1) * ldc + n); }
};

void check_against_double(Isa isa, int64_t m, int64_t n, int64_t k, uint32_t seed) {
  Problem p(m, n, k, seed);
  Guarded c(p.c_elements());
  const std::vector<float> before(c.data(), c.data() + p.c_elements());
  const GemmArgs g = p.args(gemm_kernels(isa), c.data());
  gemm_kernels(isa).gemm(g);
  bool good = c.intact();
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < p.ldc && i * p.ldc + j < static_cast<int64_t>(p.c_elements()); ++j) {
      const size_t at = static_cast<size_t>(i * p.ldc + j);
      if (j >= n) {
        good = good && bits(c[at]) == bits(before[at]);  // the padding of C's rows
        continue;
      }
      double magnitude = 0;
      const double want = p.exact(i, j, &magnitude);
      const double bound = 2 * std::sqrt(static_cast<double>(k + 2)) * 0x1p-24 * magnitude;
      good = good && std::fabs(c[at] - want) <= bound;
    }
  }
  if (!good) {
    fail(__FILE__, __LINE__,
         "gemm " + std::string(isa_name(isa)) + " m=" + std::to_string(m) + " n=" + std::to_string(n) +
             " k=" + std::to_string(k) + " seed=" + std::to_string(seed));
  }
}

}  // namespace

TEST(gemm_close_to_double_small) {
  for (const Isa isa : available_isas()) {
    uint32_t seed = 0;
    for (int64_t m = 1; m <= 26; ++m) {
      for (const int64_t n : {1, 10, 16, 17, 32, 40, 48, 63, 64, 65, 100, 128, 130, 144, 257}) {
        for (const int64_t k : {1, 3, 31, 37, 64}) check_against_double(isa, m, n, k, ++seed);
      }
    }
  }
}

TEST(gemm_close_to_double_large) {
  std::mt19937 engine(5);
  for (const Isa isa : available_isas()) {
    for (int i = 0; i < 12; ++i) {
      const auto draw = [&](int64_t low, int64_t high) { return low + static_cast<int64_t>(engine() % (high - low)); };
      check_against_double(isa, draw(1, 90), draw(1, 500), draw(1, 900), static_cast<uint32_t>(i));
    }
    check_against_double(isa, 40, 100, 1700, 0);  // blocks of K go on from C
    check_against_double(isa, 40, 100, 1700, 1);
  }
}

TEST(gemm_of_nothing) {
  for (const Isa isa : available_isas()) {
    Guarded c(6);
    const float bias[3] = {1, 2, 3};
    GemmArgs g;
    g.m = 2, g.n = 3, g.k = 0, g.c = c.data(), g.ldc = 3, g.bias = bias, g.bias_kind = BiasKind::kPerColumn;
    gemm_kernels(isa).gemm(g);
    for (size_t i = 0; i < 6; ++i) CHECK_EQ(c[i], bias[i % 3]);
    g.m = 0;
    gemm_kernels(isa).gemm(g);
    CHECK(c.intact());
  }
}

// 64 products of 1/16 beside a bias of 2^20, whose last place is 1/8: added to it one by one they would all be lost.
TEST(gemm_small_sums_beside_a_large_bias) {
  for (const Isa isa : available_isas()) {
    for (const int64_t m : {1, 2, 5, 30}) {
      for (const BiasKind kind : {BiasKind::kPerRow, BiasKind::kPerColumn}) {
        constexpr int64_t kDepth = 64, kColumns = 20;
        const std::vector<float> a(static_cast<size_t>(m * kDepth), 0.25f), b(kDepth * kColumns, 0.25f);
        const std::vector<float> bias(64, 0x1p20f);
        std::vector<float> c(static_cast<size_t>(m * kColumns));
        auto packed = make_aligned<float>(packed_b_elements(kDepth, kColumns));
        gemm_kernels(isa).pack_b(b.data(), kColumns, kDepth, kColumns, packed.get());
        GemmArgs g;
        g.m = m, g.n = kColumns, g.k = kDepth;
        g.a = a.data(), g.lda = kDepth;
        use_packed_b(g, packed.get());
        g.c = c.data(), g.ldc = kColumns;
        g.bias = bias.data(), g.bias_kind = kind;
        gemm_kernels(isa).gemm(g);
        for (const float v : c) CHECK_EQ(v, 0x1p20f + 4.0f);
      }
    }
  }
}

TEST(gemm_residual_in_place) {
  for (const Isa isa : available_isas()) {
    for (const int64_t k : {20, 1600}) {
      Problem p(30, 50, k, 1);
      p.ldc = p.ldr;
      std::vector<float> apart(p.c_elements()), place = p.residual;
      GemmArgs g = p.args(gemm_kernels(isa), apart.data());
      gemm_kernels(isa).gemm(g);
      g.c = place.data(), g.residual = place.data();
      gemm_kernels(isa).gemm(g);
      for (int64_t i = 0; i < p.m; ++i) {
        CHECK(same(apart.data() + i * p.ldc, place.data() + i * p.ldc, static_cast<size_t>(p.n)));
      }
    }
  }
}

TEST(gemm_nan_and_infinity_reach_the_answer) {
  for (const Isa isa : available_isas()) {
    Problem p(5, 20, 40, 0);
    p.a[static_cast<size_t>(2 * p.lda + 7)] = NAN;
    p.a[static_cast<size_t>(3 * p.lda + 9)] = INFINITY;
    std::vector<float> c(p.c_elements());
    GemmArgs g = p.args(gemm_kernels(isa), c.data());
    g.act = Unary::kRelu;
    gemm_kernels(isa).gemm(g);
    for (int64_t j = 0; j < p.n; ++j) {
      CHECK(std::isnan(c[static_cast<size_t>(2 * p.ldc + j)]));
      const float v = c[static_cast<size_t>(3 * p.ldc + j)];
      CHECK(v == INFINITY || v == 0);
    }
    CHECK(std::isfinite(c[0]));
  }
}

TEST(gemm_packs_transposed_as_plain) {
  for (const Isa isa : available_isas()) {
    for (const int64_t n : {1, 15, 16, 33, 64}) {
      for (const int64_t k : {1, 4, 6, 33}) {
        const auto b = random_floats(static_cast<size_t>(k * n), 9);
        std::vector<float> turned(b.size());
        for (int64_t i = 0; i < k; ++i) {
          for (int64_t j = 0; j < n; ++j) turned[static_cast<size_t>(j * k + i)] = b[static_cast<size_t>(i * n + j)];
        }
        Guarded plain(packed_b_elements(k, n)), other(packed_b_elements(k, n));
        gemm_kernels(isa).pack_b(b.data(), n, k, n, plain.data());
        gemm_kernels(isa).pack_b_transposed(turned.data(), k, k, n, other.data());
        CHECK(same(plain.data(), other.data(), packed_b_elements(k, n)));
        CHECK(plain.intact() && other.intact());
        for (int64_t p = 0; p * 16 < n; ++p) {
          for (int64_t i = 0; i < k; ++i) {
            for (int64_t j = 0; j < 16; ++j) {
              const float want = p * 16 + j < n ? b[static_cast<size_t>(i * n + p * 16 + j)] : 0.0f;
              CHECK_EQ(plain[static_cast<size_t>((p * k + i) * 16 + j)], want);
            }
          }
        }
      }
    }
  }
}
