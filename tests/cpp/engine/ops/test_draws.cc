// Philox against the vectors of its authors (Random123, kat_vectors), and what is made of its words.
#include <cmath>
#include <vector>

#include "engine/ops/common/draws.h"
#include "test.h"

namespace inferkit {
namespace {

TEST(philox_gives_the_words_of_its_authors) {
  CHECK(philox({0, 0, 0, 0}, 0, 0) == (PhiloxWords{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t ones = 0xffffffff;
  CHECK(philox({ones, ones, ones, ones}, ones, ones) == (PhiloxWords{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0) ==
        (PhiloxWords{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(a_draw_hangs_on_its_place_alone) {
  const Draws draws(5, 9);
  constexpr int64_t kCount = 37;
  std::vector<uint32_t> words;
  std::vector<uint64_t> longs;
  draws.words(0, kCount, [&](int64_t, uint32_t w) { words.push_back(w); });
  draws.long_words(0, kCount, [&](int64_t, uint64_t w) { longs.push_back(w); });
  for (int64_t first = 0; first < kCount; ++first) {
    draws.words(first, kCount, [&](int64_t i, uint32_t w) { CHECK_EQ(w, words[static_cast<size_t>(i)]); });
    draws.long_words(first, kCount, [&](int64_t i, uint64_t w) { CHECK_EQ(w, longs[static_cast<size_t>(i)]); });
  }
  Draws(5, 10).words(0, 1, [&](int64_t, uint32_t w) { CHECK(w != words[0]); });
  Draws(6, 9).words(0, 1, [&](int64_t, uint32_t w) { CHECK(w != words[0]); });
}

TEST(middles_are_strictly_between_0_and_1) {
  CHECK(between(uint32_t{0}) > 0 && between(~uint32_t{0}) < 1);
  CHECK(between(uint64_t{0}) > 0 && between(~uint64_t{0}) < 1);
}

double off(double found, double expected) { return std::fabs(found - expected) / std::fabs(expected); }

TEST(logarithm_and_exponential_are_the_c_librarys_but_for_the_last_bits) {
  double worst_log = 0, worst_exp = 0;
  Draws(1, 0).long_words(0, 100'000, [&](int64_t i, uint64_t w) {
    const double x = std::ldexp(between(w), -static_cast<int>(i % 60));
    worst_log = std::max(worst_log, off(plain_log(x), std::log(x)));
    worst_exp = std::max(worst_exp, off(plain_exp(-700 * x), std::exp(-700 * x)));
  });
  CHECK(worst_log < 1e-15);
  CHECK(worst_exp < 1e-15);
  CHECK_EQ(plain_exp(0), 1.0);
  CHECK_EQ(plain_exp(-1e300), 0.0);
}

TEST(the_normal_quantile_is_the_inverse_of_the_distribution) {
  for (double p = 1e-9; p < 0.5; p *= 1.3) {
    const double z = normal_quantile(p);
    CHECK(off(0.5 * std::erfc(-z / std::sqrt(2.0)), p) < 1e-13);
    CHECK(std::fabs(normal_quantile(1 - p) + normal_quantile(1 - (1 - p))) < 1e-15);
  }
  CHECK_EQ(normal_quantile(0.5), 0.0);
  CHECK(off(normal_quantile(0x1p-53), -8.209536151601387) < 1e-13);
}

}  // namespace
}  // namespace inferkit
