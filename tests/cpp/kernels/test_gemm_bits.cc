// The hard law: the bits of an element depend on its row of A, B, its bias and residual, K and the layer; nothing else.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/gemm/gemm.h"
#include "platform/aligned_alloc.h"
#include "platform/thread_pool.h"
#include "support.h"

using namespace inferkit;
using namespace inferkit::kernels;
using namespace inferkit::testing;

namespace {

struct Layer {
  int64_t n, k;
  Unary act;
  std::vector<float> weights, bias;
  AlignedArray<float> packed;

  Layer(int64_t columns, int64_t depth, Unary activation)
      : n(columns),
        k(depth),
        act(activation),
        weights(random_floats(static_cast<size_t>(n * k), 11)),
        bias(random_floats(static_cast<size_t>(n), 12)),
        packed(make_aligned<float>(packed_b_elements(k, n))) {
    pack_b(weights.data(), n, k, n, packed.get());
  }
  GemmArgs args(const float* a, int64_t m, float* c) const {
    GemmArgs g;
    g.m = m, g.n = n, g.k = k, g.a = a, g.lda = k, g.c = c, g.ldc = n;
    use_packed_b(g, packed.get());
    g.bias = bias.data(), g.bias_kind = BiasKind::kPerColumn;
    g.act = act, g.act_alpha = 0.5f, g.act_beta = 0.25f;
    return g;
  }
  /// Row by row.
  std::vector<float> alone(Isa isa, const std::vector<float>& a, int64_t m) const {
    std::vector<float> c(static_cast<size_t>(m * n));
    for (int64_t i = 0; i < m; ++i) gemm_kernels(isa).gemm(args(a.data() + i * k, 1, c.data() + i * n));
    return c;
  }
};

// Every count of panels that takes a tile, a chunk rule or a block of its own.
const std::vector<std::pair<int64_t, int64_t>> kShapes = {
    {10, 256},  {16, 33},  {31, 70},    {32, 512},  {40, 100}, {64, 64},   {65, 80}, {100, 31},
    {130, 257}, {256, 40}, {300, 1700}, {20, 2000}, {64, 640}, {200, 129}, {24, 0},  {72, 1}};

/// The rule, written down as it is stated: chunks from zero in ascending order, added from the first to the last.
float by_the_rule(const float* a, const float* b, int64_t ldb, int64_t k, int64_t chunk) {
  float total = 0;
  for (int64_t first = 0; first < k; first += chunk) {
    float sum = 0;
    for (int64_t i = first; i < std::min(k, first + chunk); ++i) sum = std::fma(a[i], b[i * ldb], sum);
    total = first == 0 ? sum : total + sum;
  }
  return total;
}

}  // namespace

TEST(gemm_sums_by_the_rule) {
  for (const Isa isa : available_isas()) {
    if (isa == Isa::kBaseline) continue;  // rounds its products
    for (const auto& [n, k] : kShapes) {
      for (const int64_t m : {1, 2, 5, 12, 26}) {
        Layer layer(n, k, Unary::kIdentity);
        const auto a = random_floats(static_cast<size_t>(m * k), 21);
        std::vector<float> c(static_cast<size_t>(m * n)), want(c.size());
        gemm_kernels(isa).gemm(layer.args(a.data(), m, c.data()));
        for (int64_t i = 0; i < m; ++i) {
          for (int64_t j = 0; j < n; ++j) {
            want[static_cast<size_t>(i * n + j)] =
                by_the_rule(a.data() + i * k, layer.weights.data() + j, n, k, sum_chunk(k, n)) +
                layer.bias[static_cast<size_t>(j)];
          }
        }
        CHECK(same(c.data(), want.data(), c.size()));
      }
    }
  }
}

TEST(sum_chunks_are_a_constant_of_the_layer) {
  for (int64_t k = 0; k < 5000; ++k) {
    CHECK(sum_chunk(k) >= 1 && sum_chunk(k) <= kLongestChunk);
    CHECK(k < 32 ? sum_chunk(k) >= k : 2 * sum_chunk(k) <= k + 1);
    for (const int64_t n : {1, 32, 33, 1000}) CHECK(sum_chunk(k, n) >= 1 && sum_chunk(k, n) <= sum_chunk(k));
  }
}

/// The root mean square of the errors of sums of k products, against double.
static double error_of(int64_t k, int64_t chunk) {
  constexpr int64_t kSums = 400;
  const auto a = random_floats(static_cast<size_t>(k), 22), b = random_floats(static_cast<size_t>(k * kSums), 23);
  double squares = 0;
  for (int64_t j = 0; j < kSums; ++j) {
    double exact = 0;
    for (int64_t i = 0; i < k; ++i)
      exact += double(a[static_cast<size_t>(i)]) * double(b[static_cast<size_t>(i * kSums + j)]);
    const double error = double(by_the_rule(a.data(), b.data() + j, kSums, k, chunk)) - exact;
    squares += error * error;
  }
  return std::sqrt(squares / kSums);
}

TEST(sum_chunks_make_long_sums_more_accurate) {
  for (const int64_t k : {64, 384, 1024, 4096}) {
    const double whole = error_of(k, k), chunked = error_of(k, sum_chunk(k));
    std::cout << "  " << k << ": " << chunked / whole << " of the error of one long sum\n";
    CHECK(chunked < (k < 128 ? 0.95 : k <= 1024 ? 0.75 : 0.5) * whole);
  }
}

TEST(chunks_of_computed_products_are_as_accurate_as_those_of_weights) {
  for (const int64_t k : {64, 128, 384, 512, 1024, 1025, 4096}) {
    const double weights = error_of(k, sum_chunk(k)), computed = error_of(k, computed_chunk(k));
    std::cout << "  " << k << ": " << computed / weights << " of the error of the chunks of weights\n";
    CHECK(computed <= 1.05 * weights);
    CHECK(k > kLongestEven || computed_chunk(k) == kEvenChunk);  // whatever K: zeros behind its end change nothing
  }
}

TEST(gemm_bits_do_not_depend_on_the_batch) {
  constexpr int64_t kRows = 40;
  for (const Isa isa : available_isas()) {
    for (const auto& [n, k] : kShapes) {
      const Layer layer(n, k, Unary::kTanh);
      const auto a = random_floats(static_cast<size_t>(kRows * k), 13);
      const auto want = layer.alone(isa, a, kRows);
      for (int64_t m = 1; m <= kRows; ++m) {
        const int64_t first = (kRows - m) / 2;  // rows stand at other places in each batch
        std::vector<float> c(static_cast<size_t>(m * n));
        gemm_kernels(isa).gemm(layer.args(a.data() + first * k, m, c.data()));
        CHECK(same(c.data(), want.data() + first * n, c.size()));
      }
    }
  }
}

TEST(gemm_bits_are_those_of_avx2_above_it) {
  for (const Isa isa : tiers_above_avx2()) {
    for (const auto& [n, k] : kShapes) {
      for (const Unary act : {Unary::kIdentity, Unary::kRelu, Unary::kGelu, Unary::kSilu, Unary::kSigmoid}) {
        const Layer layer(n, k, act);
        const auto a = random_floats(static_cast<size_t>(17 * k), 14, -3, 3);
        std::vector<float> low(static_cast<size_t>(17 * n)), high(low.size());
        gemm_kernels(Isa::kAvx2).gemm(layer.args(a.data(), 17, low.data()));
        gemm_kernels(isa).gemm(layer.args(a.data(), 17, high.data()));
        CHECK(same(low.data(), high.data(), low.size()));
      }
    }
  }
}

TEST(gemm_bits_do_not_depend_on_packing) {
  for (const Isa isa : available_isas()) {
    for (const int64_t n : {16, 48, 160}) {
      const Layer layer(n, 90, Unary::kIdentity);
      const auto a = random_floats(static_cast<size_t>(9 * 90), 15);
      std::vector<float> packed(static_cast<size_t>(9 * n)), plain(packed.size());
      GemmArgs g = layer.args(a.data(), 9, packed.data());
      gemm_kernels(isa).gemm(g);
      g.b = layer.weights.data(), g.b_k_stride = n, g.b_panel_stride = kPanelColumns, g.c = plain.data();
      gemm_kernels(isa).gemm(g);
      CHECK(same(packed.data(), plain.data(), plain.size()));
    }
  }
}

TEST(gemm_bits_do_not_depend_on_threads) {
  ThreadPool pool(4);
  for (const auto& [n, k] : std::vector<std::pair<int64_t, int64_t>>{{10, 4096}, {48, 900}, {700, 600}, {130, 20000}}) {
    for (const int64_t m : {1, 7, 64, 301}) {
      if (m * k > 200000) continue;
      const Layer layer(n, k, Unary::kSigmoid);
      const auto a = random_floats(static_cast<size_t>(m * k), 16);
      std::vector<float> one(static_cast<size_t>(m * n)), many(one.size());
      const auto row_bias = random_floats(static_cast<size_t>(m), 17), residual = random_floats(one.size(), 18);
      GemmArgs g = layer.args(a.data(), m, one.data());
      g.bias = row_bias.data(), g.bias_kind = BiasKind::kPerRow, g.residual = residual.data(), g.ldr = n;
      gemm_f32(g);
      for (const int threads : {1, 2, 3, 4, 9}) {
        std::fill(many.begin(), many.end(), -1.0f);
        g.c = many.data();
        gemm_f32_parallel(g, &pool, threads);
        CHECK(same(one.data(), many.data(), one.size()));
      }
      gemm_f32_parallel(g, nullptr, 4);
      CHECK(same(one.data(), many.data(), one.size()));
    }
  }
}

// Columns cut at panels give the same bits where the layer's chunk is handed on.
TEST(gemm_bits_do_not_depend_on_column_cuts) {
  for (const Isa isa : available_isas()) {
    for (const int64_t n : {40, 200}) {
      const Layer layer(n, 120, Unary::kIdentity);
      const auto a = random_floats(static_cast<size_t>(5 * 120), 18);
      std::vector<float> whole(static_cast<size_t>(5 * n)), cut(whole.size());
      gemm_kernels(isa).gemm(layer.args(a.data(), 5, whole.data()));
      for (int64_t panel = 0; panel * 16 < n; ++panel) {
        GemmArgs g = layer.args(a.data(), 5, cut.data() + panel * 16);
        g.k_chunk = sum_chunk(g.k, n);
        g.n = std::min<int64_t>(16, n - panel * 16);
        g.b += panel * g.b_panel_stride;
        g.bias += panel * 16;
        gemm_kernels(isa).gemm(g);
      }
      CHECK(same(whole.data(), cut.data(), whole.size()));
    }
  }
}

TEST(gemm_fused_is_unfused) {
  for (const Isa isa : available_isas()) {
    for (const auto& [n, k] : kShapes) {
      for (int op = 0; op < kUnaryCount; ++op) {
        const Layer fused(n, k, static_cast<Unary>(op)), plain(n, k, Unary::kIdentity);
        const int64_t m = 14;
        const auto a = random_floats(static_cast<size_t>(m * k), 19);
        std::vector<float> one(static_cast<size_t>(m * n)), two(one.size());
        gemm_kernels(isa).gemm(fused.args(a.data(), m, one.data()));
        gemm_kernels(isa).gemm(plain.args(a.data(), m, two.data()));
        vmath_kernels(isa).unary[op](two.data(), two.data(), m * n, 0.5f, 0.25f);
        CHECK(same(one.data(), two.data(), one.size()));
      }
    }
  }
}

TEST(gemm_batch_has_the_bits_of_products_one_by_one_on_any_number_of_threads) {
  struct Batch {
    int64_t count, m, n, k;
  };
  // Many small products, few that are cut by rows or by columns, one, and some that are too little to share.
  const Batch batches[] = {{96, 32, 48, 64}, {3, 128, 40, 96}, {2, 1, 1030, 512}, {1, 64, 64, 300},
                           {5, 2, 16, 8},    {7, 33, 100, 70}, {400, 4, 16, 33},  {0, 4, 16, 33}};
  for (const auto& [count, m, n, k] : batches) {
    const auto a = random_floats(static_cast<size_t>(count * m * k), 21);
    const auto b = random_floats(static_cast<size_t>(count * k * n), 22);
    const auto room = static_cast<int64_t>(packed_b_elements(k, n));
    const auto product = [&, m = m, n = n, k = k](int64_t i, float* scratch, float* c) {
      GemmArgs g;
      g.m = m, g.n = n, g.k = k, g.a = a.data() + i * m * k, g.lda = k, g.c = c + i * m * n, g.ldc = n;
      pack_b(b.data() + i * k * n, n, k, n, scratch);
      use_packed_b(g, scratch);
      return g;
    };
    const auto size = static_cast<size_t>(count * m * n);
    std::vector<float> want(size);
    const auto scratch = make_aligned<float>(static_cast<size_t>(std::max<int64_t>(count, 16) * room));
    for (int64_t i = 0; i < count; ++i) gemm_f32(product(i, scratch.get(), want.data()));
    for (const int threads : {1, 2, 3, 8}) {
      ThreadPool pool(threads);
      for (const bool packs : {false, true}) {
        std::vector<float> c(size);
        // Where a product is shared, each part asks: for the same bytes, which are there already.
        for (int64_t i = 0; !packs && i < count; ++i) product(i, scratch.get() + i * room, c.data());
        const auto operands = [&](int64_t i, int64_t slot) {
          if (packs) return product(i, scratch.get() + slot * room, c.data());
          GemmArgs g;
          g.m = m, g.n = n, g.k = k, g.a = a.data() + i * m * k, g.lda = k, g.c = c.data() + i * m * n, g.ldc = n;
          use_packed_b(g, scratch.get() + i * room);
          return g;
        };
        const GemmBatch batch{count, m, n, k, packs ? threads : GemmBatch::kAnySlots, packs};
        gemm_f32_batch(batch, operands, &pool, threads);
        CHECK(same(c.data(), want.data(), size));
      }
    }
  }
}
