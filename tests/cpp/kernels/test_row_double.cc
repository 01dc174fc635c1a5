// Rows of double: near long double, by the rule, and the same bits on every tier above the baseline.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cpu/row/row.h"
#include "kernels/summation.h"
#include "support.h"

using namespace inferkit;
using namespace inferkit::kernels;

namespace {

const std::vector<size_t> kLengths = {1, 2, 3, 7, 8, 9, 15, 16, 31, 32, 33, 63, 64, 65, 100, 255, 1000, 8192, 8193};
constexpr double kInf = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();

std::vector<double> random_doubles(size_t n, uint32_t seed, double low, double high) {
  std::mt19937_64 engine(seed);
  std::uniform_real_distribution<double> draw(low, high);
  std::vector<double> out(n);
  for (double& v : out) v = draw(engine);
  return out;
}

/// With a cell behind the row that nobody may touch.
std::vector<double> softmax(Isa isa, const std::vector<double>& x) {
  std::vector<double> y(x.size() + 1, 77.0);
  row_kernels(isa).softmax64(x.data(), y.data(), static_cast<int64_t>(x.size()));
  CHECK_EQ(y.back(), 77.0);
  y.pop_back();
  return y;
}

struct LogSum {
  double top = 0, sum = 0;
};
LogSum log_sum(Isa isa, const std::vector<double>& x) {
  LogSum out;
  out.sum = row_kernels(isa).exponentials64(x.data(), nullptr, static_cast<int64_t>(x.size()), &out.top);
  return out;
}

/// e^x of an x that is not positive.
double exponential(Isa isa, double x) {
  const double row[] = {x, 0.0};
  double e[2], top = 0;
  row_kernels(isa).exponentials64(row, e, 2, &top);
  return e[0];
}

}  // namespace

TEST(rows_of_double_are_near_the_exact_softmax) {
  for (const Isa isa : available_isas()) {
    for (const size_t n : kLengths) {
      for (const double reach : {1.0, 20.0, 300.0}) {
        const auto x = random_doubles(n, static_cast<uint32_t>(n), -reach, reach);
        const long double top = *std::max_element(x.begin(), x.end());
        long double sum = 0;
        for (const double v : x) sum += std::exp(v - top);
        const auto y = softmax(isa, x);
        const LogSum found = log_sum(isa, x);
        CHECK_EQ(found.top, static_cast<double>(top));
        CHECK(std::fabs(found.sum - static_cast<double>(sum)) <= 4e-16 * static_cast<double>(sum) * 2);
        for (size_t i = 0; i < n; ++i) {
          const long double want = std::exp(x[i] - top) / sum;
          // x - top is rounded to a double, which the exponential makes a relative error.
          const double rounding = 2.3e-16 * (4 + static_cast<double>(top - x[i]) / 2);
          CHECK(std::fabs(static_cast<double>(y[i] - want)) <= rounding * static_cast<double>(want) + 5e-324);
        }
      }
    }
  }
}

TEST(exponentials_of_double_are_within_a_unit_in_the_last_place) {
  for (const Isa isa : available_isas()) {
    for (int i = 0; i < 20'000; ++i) {
      const double x = -static_cast<double>(i) * 0.0353;  // down to -706
      const long double want = std::exp(static_cast<long double>(x));
      const double unit = std::ldexp(1.0, std::ilogb(static_cast<double>(want)) - 52);
      CHECK(std::fabs(static_cast<double>(exponential(isa, x) - want)) <= unit);
    }
    CHECK_EQ(exponential(isa, 0.0), 1.0);
    CHECK_EQ(exponential(isa, -800.0), 0.0);
    CHECK_EQ(exponential(isa, -kInf), 0.0);
    CHECK_EQ(exponential(isa, -1e300), 0.0);
    // Where the answer is subnormal, it is near the right one all the same.
    CHECK(std::fabs(exponential(isa, -720.0) - std::exp(-720.0)) <= 1e-322);
  }
}

/// Element i goes to lane i mod 32; a lane sums a chunk from zero, its chunks are added in turn, and the lanes by twos
/// of vectors, then in halves.
TEST(sums_of_rows_of_double_follow_the_rule) {
  for (const Isa isa : available_isas()) {
    for (const size_t n : {1, 31, 32, 33, 1000, 8192, 8193, 8225, 30'011}) {
      const auto x = random_doubles(n, static_cast<uint32_t>(n), -1, 0);
      std::vector<double> e(n);
      double top = 0;
      const double sum = row_kernels(isa).exponentials64(x.data(), e.data(), static_cast<int64_t>(n), &top);
      std::vector<double> total(32, 0.0);
      for (size_t lane = 0; lane < 32; ++lane) {
        const size_t block = 32 * kLongestChunk;
        for (size_t first = 0; first < n; first += block) {
          double part = 0;
          for (size_t i = first + lane; i < std::min(n, first + block); i += 32) part += e[i];
          total[lane] = first == 0 ? part : total[lane] + part;
        }
      }
      std::vector<double> v(8);
      for (size_t i = 0; i < 8; ++i) v[i] = (total[i] + total[i + 8]) + (total[i + 16] + total[i + 24]);
      for (size_t half = 4; half > 0; half /= 2) {
        for (size_t i = 0; i < half; ++i) v[i] += v[i + half];
      }
      CHECK_EQ(sum, v[0]);
      CHECK_EQ(log_sum(isa, x).sum, sum);
    }
  }
}

TEST(extremes_and_nan_in_rows_of_double) {
  for (const Isa isa : available_isas()) {
    const auto y = softmax(isa, {1000, -kInf, 999, -1000});
    CHECK(std::fabs(y[0] - 0.73105857863000487925) < 1e-15);
    CHECK(y[1] == 0 && y[3] == 0);
    for (const double v : softmax(isa, {-kInf, -kInf, -kInf})) CHECK(std::isnan(v));
    for (const double v : softmax(isa, {1.0, kInf})) CHECK(std::isnan(v) || v == 0);
    for (const size_t n : kLengths) {
      for (const size_t at : {size_t{0}, n / 2, n - 1}) {
        auto x = random_doubles(n, 5, -1, 1);
        x[at] = kNan;
        for (const double v : softmax(isa, x)) CHECK(std::isnan(v));
        CHECK(std::isnan(log_sum(isa, x).top));
      }
    }
  }
}

TEST(rows_of_double_in_place_and_on_each_tier_have_the_same_bits) {
  for (const size_t n : kLengths) {
    const auto x = random_doubles(n, static_cast<uint32_t>(n) + 7, -750, 750);
    std::vector<std::vector<double>> found;
    for (const Isa isa : available_isas()) {
      if (isa == Isa::kBaseline) continue;
      found.push_back(softmax(isa, x));
      auto place = x;
      row_kernels(isa).softmax64(place.data(), place.data(), static_cast<int64_t>(n));
      CHECK(place == found.back());
      found.back().push_back(log_sum(isa, x).sum);
    }
    for (const auto& other : found) {
      CHECK(std::equal(other.begin(), other.end(), found[0].begin(),
                       [](double a, double b) { return std::bit_cast<uint64_t>(a) == std::bit_cast<uint64_t>(b); }));
    }
  }
}
