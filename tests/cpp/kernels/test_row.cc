#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/cpu/row/row.h"
#include "kernels/summation.h"
#include "support.h"

using namespace inferkit;
using namespace inferkit::kernels;
using namespace inferkit::testing;

namespace {

const std::vector<size_t> kLengths = {1, 2, 7, 15, 16, 17, 48, 63, 64, 65, 127, 128, 200, 384, 1000};

float reduce(Isa isa, Reduce op, const std::vector<float>& x) {
  return row_kernels(isa).reduce[static_cast<size_t>(op)](x.data(), static_cast<int64_t>(x.size()));
}

}  // namespace

TEST(columns_have_the_bits_of_rows) {
  for (const Isa isa : available_isas()) {
    for (const int64_t n :
         {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 48, 63, 64, 65, 100, 127, 129, 300, 16384, 16385, 33000}) {
      for (const int64_t width : {1, 2, 7, 16, 17, 63, 64, 65, 130}) {
        if (n > 300 && width > 17) continue;
        const int64_t stride = width + 3;
        auto x = random_floats(static_cast<size_t>(n * stride), static_cast<uint32_t>(n * 131 + width), -2, 2);
        if (n > 2 && width > 2) {
          x[0] = -0.0f, x[static_cast<size_t>(stride)] = 0.0f;  // column 0: zeros of both signs
          x[static_cast<size_t>((n - 1) * stride + 1)] = std::numeric_limits<float>::infinity();
          x[static_cast<size_t>((n / 2) * stride + 2)] = std::numeric_limits<float>::quiet_NaN();
        }
        std::vector<float> row(static_cast<size_t>(n)), y(static_cast<size_t>(width));
        for (int op = 0; op < kReduceCount; ++op) {
          row_kernels(isa).reduce_columns[op](x.data(), n, stride, width, y.data());
          for (int64_t j = 0; j < width; ++j) {
            for (int64_t r = 0; r < n; ++r) row[static_cast<size_t>(r)] = x[static_cast<size_t>(r * stride + j)];
            const float alone = row_kernels(isa).reduce[op](row.data(), n);
            const float beside = y[static_cast<size_t>(j)];
            CHECK(std::isnan(alone) ? std::isnan(beside)
                                    : std::bit_cast<uint32_t>(alone) == std::bit_cast<uint32_t>(beside));
          }
        }
      }
    }
  }
}

TEST(exponentials_of_columns_have_the_bits_of_softmax) {
  for (const Isa isa : available_isas()) {
    const auto& k = row_kernels(isa);
    for (const int64_t n : {1, 2, 3, 5, 7, 8, 9, 16, 64, 65, 200}) {
      constexpr int64_t kWidth = 70;
      auto x = random_floats(static_cast<size_t>(n * kWidth), static_cast<uint32_t>(n), -8, 8);
      std::vector<float> e(x.size()), row(static_cast<size_t>(n)), y(row.size());
      std::vector<float> top(kWidth), sum(kWidth), again(kWidth);
      k.reduce_columns[static_cast<size_t>(Reduce::kMax)](x.data(), n, kWidth, kWidth, top.data());
      k.exponentials(x.data(), n, kWidth, kWidth, top.data(), e.data(), sum.data());
      k.exponentials(x.data(), n, kWidth, kWidth, top.data(), nullptr, again.data());
      CHECK(sum == again);
      for (int64_t j = 0; j < kWidth; ++j) {
        for (int64_t r = 0; r < n; ++r) row[static_cast<size_t>(r)] = x[static_cast<size_t>(r * kWidth + j)];
        k.softmax(row.data(), y.data(), n, 1, nullptr);
        for (int64_t r = 0; r < n; ++r) {
          const float ours = e[static_cast<size_t>(r * kWidth + j)] * (1.0f / sum[static_cast<size_t>(j)]);
          CHECK_EQ(ours, y[static_cast<size_t>(r)]);
        }
      }
    }
  }
}

TEST(row_reductions_close_to_double) {
  for (const Isa isa : available_isas()) {
    for (const size_t n : kLengths) {
      const auto x = random_floats(n, static_cast<uint32_t>(n));
      double sum = 0, squares = 0, size = 0;
      for (const float v : x) sum += v, squares += static_cast<double>(v) * v, size += std::fabs(v);
      const double eps = 0x1p-24 * (2 + static_cast<double>(n) / 32);
      CHECK(std::fabs(reduce(isa, Reduce::kSum, x) - sum) <= eps * size);
      CHECK(std::fabs(reduce(isa, Reduce::kMean, x) - sum / static_cast<double>(n)) <= 2 * eps * size / n);
      CHECK(std::fabs(reduce(isa, Reduce::kSumSquares, x) - squares) <= 2 * eps * squares);
      CHECK(std::fabs(reduce(isa, Reduce::kSumAbs, x) - size) <= eps * size);
      CHECK_EQ(reduce(isa, Reduce::kMax, x), *std::max_element(x.begin(), x.end()));
      CHECK_EQ(reduce(isa, Reduce::kMin, x), *std::min_element(x.begin(), x.end()));
      const auto near_one = random_floats(n, 5, 0.98f, 1.02f);
      double product = 1;
      for (const float v : near_one) product *= v;
      CHECK(std::fabs(reduce(isa, Reduce::kProduct, near_one) - product) <= 2 * n * 0x1p-24 * product);
    }
  }
}

/// The rule, written down as it is stated: element i goes to lane i mod 64; a lane sums a chunk from zero, its chunks
/// are added in turn, and the lanes by fours of vectors, then in halves.
static float sum_by_the_rule(const std::vector<float>& x) {
  std::array<float, 64> total{};
  for (size_t lane = 0; lane < 64; ++lane) {
    const size_t block = 64 * kLongestChunk;
    for (size_t first = 0; first < x.size(); first += block) {
      float sum = 0;
      for (size_t i = first + lane; i < std::min(x.size(), first + block); i += 64) sum += x[i];
      total[lane] = first == 0 ? sum : total[lane] + sum;
    }
  }
  std::array<float, 16> v{};
  for (size_t i = 0; i < 16; ++i) v[i] = (total[i] + total[i + 16]) + (total[i + 32] + total[i + 48]);
  for (size_t half = 8; half > 0; half /= 2) {
    for (size_t i = 0; i < half; ++i) v[i] += v[i + half];
  }
  return v[0];
}

TEST(row_sums_by_the_rule) {
  for (const Isa isa : available_isas()) {
    for (const size_t n : {1, 63, 64, 1000, 16384, 16385, 16448, 50'000, 100'003}) {
      const auto x = random_floats(n, static_cast<uint32_t>(n), 0.9f, 1.1f);
      CHECK_EQ(reduce(isa, Reduce::kSum, x), sum_by_the_rule(x));
    }
  }
}

TEST(row_reductions_of_nothing_and_of_nan) {
  for (const Isa isa : available_isas()) {
    CHECK_EQ(reduce(isa, Reduce::kSum, {}), 0.0f);
    CHECK(std::isnan(reduce(isa, Reduce::kMean, {})));
    CHECK_EQ(reduce(isa, Reduce::kMax, {}), -INFINITY);
    CHECK_EQ(reduce(isa, Reduce::kMin, {}), INFINITY);
    CHECK_EQ(reduce(isa, Reduce::kProduct, {}), 1.0f);
    for (const size_t n : kLengths) {
      for (const size_t at : {size_t{0}, n / 2, n - 1}) {
        auto x = random_floats(n, 6);
        x[at] = NAN;
        for (int op = 0; op < kReduceCount; ++op) CHECK(std::isnan(reduce(isa, static_cast<Reduce>(op), x)));
      }
    }
  }
}

TEST(row_softmax_close_to_double) {
  for (const Isa isa : available_isas()) {
    for (const size_t n : kLengths) {
      const auto x = random_floats(n, 7, -20, 20), mask = random_floats(n, 8, -3, 3);
      Guarded plain(n), masked(n), logs(n);
      row_kernels(isa).softmax(x.data(), plain.data(), static_cast<int64_t>(n), 1, nullptr);
      row_kernels(isa).softmax(x.data(), masked.data(), static_cast<int64_t>(n), 0.125f, mask.data());
      row_kernels(isa).log_softmax(x.data(), logs.data(), static_cast<int64_t>(n));
      double sum = 0, masked_sum = 0, total = 0;
      for (size_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(x[i]));
      for (size_t i = 0; i < n; ++i) masked_sum += std::exp(x[i] * 0.125 + mask[i]);
      for (size_t i = 0; i < n; ++i) {
        // x - max is rounded to a float: up to 2^-19 where it lies past 32.
        CHECK(std::fabs(plain[i] - std::exp(static_cast<double>(x[i])) / sum) <= 3e-6 * plain[i] + 1e-37);
        CHECK(std::fabs(masked[i] - std::exp(x[i] * 0.125 + mask[i]) / masked_sum) <= 1e-6 * masked[i]);
        CHECK(std::fabs(logs[i] - (x[i] - std::log(sum))) <= 1e-5);
        total += plain[i];
      }
      CHECK(std::fabs(total - 1) < 1e-5);
      CHECK(plain.intact() && masked.intact() && logs.intact());
    }
  }
}

TEST(row_softmax_of_extremes) {
  for (const Isa isa : available_isas()) {
    float x[4] = {1000, -INFINITY, 999, -1000}, y[4];
    row_kernels(isa).softmax(x, y, 4, 1, nullptr);
    CHECK(std::fabs(y[0] - 0.7310586f) < 1e-6 && y[1] == 0 && y[3] == 0);
    for (float& v : x) v = -INFINITY;
    row_kernels(isa).softmax(x, y, 4, 1, nullptr);
    CHECK(std::isnan(y[0]));
  }
}

/// Small next to the mean, the spread has digits that a mean in float32 has not.
TEST(row_layer_norm_far_from_zero) {
  for (const Isa isa : available_isas()) {
    for (const size_t n : {3, 16, 33, 256, 1000, 4096, 70'000}) {
      for (const float far : {100.0f, -8e4f, 1e6f, 3e7f}) {
        std::vector<float> x(n);
        for (size_t i = 0; i < n; ++i) x[i] = far + 4.0f * static_cast<float>(i % 4);
        double mean = 0, variance = 0;
        for (const float v : x) mean += v / static_cast<double>(n);
        for (const float v : x) variance += (v - mean) * (v - mean) / static_cast<double>(n);
        Guarded y(n);
        NormArgs g;
        g.x = x.data(), g.y = y.data(), g.n = static_cast<int64_t>(n), g.epsilon = 1e-5f;
        row_kernels(isa).layer_norm(g);
        for (size_t i = 0; i < n; ++i) CHECK(std::fabs(y[i] - (x[i] - mean) / std::sqrt(variance + 1e-5)) < 1e-5);
        std::fill(x.begin(), x.end(), far / 3);  // no spread at all
        row_kernels(isa).layer_norm(g);
        for (size_t i = 0; i < n; ++i) CHECK(std::fabs(y[i]) < 0.01f);
      }
    }
  }
}

TEST(row_norms_close_to_double) {
  for (const Isa isa : available_isas()) {
    for (const size_t n : kLengths) {
      for (const bool extras : {false, true}) {
        const auto x = random_floats(n, 9, 3, 5), s = random_floats(n, 11), b = random_floats(n, 12);
        const double mean = std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(n);
        double variance = 0, squares = 0;
        for (const double e : x) variance += (e - mean) * (e - mean), squares += e * e;
        Guarded layer(n), rms(n);
        NormArgs g;
        g.x = x.data(), g.n = static_cast<int64_t>(n), g.epsilon = 1e-5f;
        if (extras) g.scale = s.data(), g.bias = b.data();
        g.y = layer.data();
        row_kernels(isa).layer_norm(g);
        g.y = rms.data();
        row_kernels(isa).rms_norm(g);
        for (size_t i = 0; i < n; ++i) {
          const double scale = extras ? s[i] : 1, bias = extras ? b[i] : 0;
          const double want_layer = (x[i] - mean) / std::sqrt(variance / n + 1e-5) * scale + bias;
          const double want_rms = x[i] / std::sqrt(squares / n + 1e-5) * scale + bias;
          CHECK(std::fabs(layer[i] - want_layer) <= 2e-6 * (1 + std::fabs(want_layer)));
          CHECK(std::fabs(rms[i] - want_rms) <= 2e-6 * (1 + std::fabs(want_rms)));
        }
        CHECK(layer.intact() && rms.intact());
        auto place = x;  // in place gives the same bits
        g.x = place.data(), g.y = place.data();
        row_kernels(isa).rms_norm(g);
        CHECK(same(place.data(), rms.data(), n));
      }
    }
  }
}

/// Several rows are normalised at a time: each has the bits that it has alone, in place too.
TEST(row_norms_of_many_rows_are_those_of_each) {
  for (const Isa isa : available_isas()) {
    for (const size_t n : {1, 15, 16, 33, 384, 1024, 1025, 2049, 5000}) {
      for (const size_t rows : {1, 2, 3, 4, 5, 9}) {
        const auto x = random_floats(n * rows, 9, 3, 5), s = random_floats(n, 11), b = random_floats(n, 12);
        for (const auto norm : {row_kernels(isa).layer_norm, row_kernels(isa).rms_norm}) {
          Guarded together(n * rows);
          std::vector<float> each(n * rows), place = x;
          NormArgs g;
          g.scale = s.data(), g.bias = b.data(), g.n = static_cast<int64_t>(n), g.epsilon = 1e-5f;
          for (size_t r = 0; r < rows; ++r) {
            g.x = x.data() + r * n, g.y = each.data() + r * n;
            norm(g);
          }
          g.rows = static_cast<int64_t>(rows);
          g.x = x.data(), g.y = together.data();
          norm(g);
          CHECK(same(together.data(), each.data(), n * rows) && together.intact());
          g.x = place.data(), g.y = place.data();
          norm(g);
          CHECK(same(place.data(), each.data(), n * rows));
        }
      }
    }
  }
}

TEST(row_bits_are_those_of_avx2_above_it) {
  const auto answers = [](Isa isa, const std::vector<float>& x) {
    const auto n = static_cast<int64_t>(x.size());
    std::vector<float> y, row(x.size());
    const auto keep = [&] { y.insert(y.end(), row.begin(), row.end()); };
    for (int op = 0; op < kReduceCount; ++op) y.push_back(reduce(isa, static_cast<Reduce>(op), x));
    row_kernels(isa).softmax(x.data(), row.data(), n, 0.3f, x.data());
    keep();
    row_kernels(isa).log_softmax(x.data(), row.data(), n);
    keep();
    NormArgs g;
    g.x = x.data(), g.y = row.data(), g.n = n, g.epsilon = 1e-6f, g.scale = x.data();
    row_kernels(isa).layer_norm(g);
    keep();
    row_kernels(isa).rms_norm(g);
    keep();
    return y;
  };
  for (const Isa isa : tiers_above_avx2()) {
    for (const size_t n : kLengths) {
      const auto x = random_floats(n, 13, -8, 8);
      const auto low = answers(Isa::kAvx2, x), high = answers(isa, x);
      CHECK(same(low.data(), high.data(), low.size()));
    }
  }
}
