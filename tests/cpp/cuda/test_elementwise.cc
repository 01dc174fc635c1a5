// Elementwise kernels on the host, to the bit as the CPU's tiers.
#include "kernels/cpu/binary/binary.h"
#include "kernels/cpu/vmath/vmath.h"
#include "support.h"

using namespace inferkit;
using namespace inferkit::testing;
namespace cuda = inferkit::kernels::cuda;
using kernels::Binary;
using kernels::BinaryForm;
using kernels::Unary;

namespace {

void run_unary(const cuda::UnaryParams& p, uint64_t seed) {
  const cuda_on_host::Grid grid{.blocks = {2}, .threads = {96}, .shared_bytes = 0, .seed = seed};
  cuda_on_host::launch(cuda::is_elementary(p.op) ? cuda::Kernel::elementary_f32 : cuda::Kernel::unary_f32, grid, &p);
}

TEST(every_function_has_the_bits_of_the_tiers) {
  const FloatEnvironment ours;
  const auto wild = wild_floats(3000, 4);
  std::vector<float> x(wild);
  for (int i = -512; i < 512; ++i) x.push_back(static_cast<float>(i) / 32);
  for (float v = 1; v < 1e38f; v *= 1.7f) x.insert(x.end(), {v, -v});  // angles of many turns
  for (const Isa isa : fusing_isas()) {
    for (int i = 0; i < kernels::kUnaryCount; ++i) {
      const auto op = static_cast<Unary>(i);
      const float alpha = op == Unary::kClip ? -0.5f : 1.5f, beta = op == Unary::kClip ? 6.0f : 0.75f;
      std::vector<float> want(x.size());
      kernels::vmath_kernels(isa).unary[i](x.data(), want.data(), static_cast<int64_t>(x.size()), alpha, beta);
      for (const uint64_t seed : kSeeds) {
        std::vector<float> y(x.size());
        run_unary({x.data(), y.data(), static_cast<int64_t>(x.size()), alpha, beta, op}, seed);
        if (!same_values(y.data(), want.data(), y.size(), cat("function ", i, ", ", isa_name(isa)))) return;
      }
    }
  }
}

TEST(arithmetic_has_the_bits_of_the_tiers) {
  const FloatEnvironment ours;
  constexpr int64_t kRows = 7, kColumns = 131;
  const auto a = wild_floats(kRows * kColumns, 1), b = wild_floats(kColumns, 2);
  for (const Isa isa : fusing_isas()) {
    for (int i = 0; i < kernels::kBinaryCount; ++i) {
      std::vector<float> want(a.size()), y(a.size());
      const auto fn = kernels::binary_kernels(isa).fn[i][static_cast<size_t>(BinaryForm::kVectorVector)];
      for (int64_t r = 0; r < kRows; ++r) fn(a.data() + r * kColumns, b.data(), want.data() + r * kColumns, kColumns);
      cuda::BinaryParams p{a.data(), b.data(), y.data(), {}, static_cast<Binary>(i)};
      p.nest = {kRows * kColumns, {kRows, kColumns}, {{kColumns, 1}, {0, 1}}, 2};
      for (const uint64_t seed : kSeeds) {
        cuda_on_host::launch(cuda::Kernel::binary_f32, {.blocks = {3}, .threads = {64}, .seed = seed}, &p);
        if (!same_values(y.data(), want.data(), y.size(), cat("operation ", i, ", ", isa_name(isa)))) return;
      }
    }
  }
}

/// What a nest walks that is prepared, or lies where fours are not aligned, is what it walks one by one with 64 bits.
TEST(four_neighbours_at_a_time_are_as_one_by_one) {
  const FloatEnvironment ours;
  using Nest = cuda::Nest<2>;
  const std::pair<const char*, Nest> nests[] = {
      {"side by side", {1003, {1003}, {{1}, {1}}, 1}},
      {"fewer than four", {3, {3}, {{1}, {1}}, 1}},
      {"a scalar", {1003, {1003}, {{1}, {0}}, 1}},
      {"a scalar first", {1000, {1000}, {{0}, {1}}, 1}},
      {"two scalars", {1, {1}, {{0}, {0}}, 1}},
      {"a row that repeats", {7 * 36, {7, 36}, {{36, 1}, {0, 1}}, 2}},
      {"a row that no four divides", {7 * 35, {7, 35}, {{35, 1}, {0, 1}}, 2}},
      {"a column that repeats", {7 * 36, {7, 36}, {{36, 1}, {1, 0}}, 2}},
      {"rows at odd places", {7 * 36, {7, 36}, {{37, 1}, {0, 1}}, 2}},
      {"every other", {400, {400}, {{2}, {1}}, 1}},
      {"three dimensions", {5 * 6 * 8, {5, 6, 8}, {{48, 8, 1}, {0, 8, 1}}, 3}},
  };
  const auto a = wild_floats(2000, 1), b = wild_floats(2000, 2);
  int by_fours = 0;
  for (const auto& [what, nest] : nests) {
    for (const size_t skip : {0u, 1u}) {
      for (const Binary op : {Binary::kAdd, Binary::kDiv, Binary::kMax}) {
        std::vector<float> want(static_cast<size_t>(nest.n) + 4, -1), y(want);
        cuda::BinaryParams p{a.data() + skip, b.data(), want.data() + skip, nest, op};
        cuda_on_host::launch(cuda::Kernel::binary_f32, {.blocks = {2}, .threads = {64}}, &p);
        cuda::prepare(p.nest);
        by_fours += p.nest.by_fours;
        CHECK(p.nest.is_small);
        p.y = y.data() + skip;
        for (const uint64_t seed : kSeeds) {
          cuda_on_host::launch(cuda::Kernel::binary_f32, {.blocks = {2}, .threads = {64}, .seed = seed}, &p);
          if (!same_values(y.data(), want.data(), y.size(), what)) return;
        }
      }
    }
  }
  CHECK_EQ(by_fours, 8 * 6);
}

TEST(functions_of_what_lies_at_odd_places_or_ends_within_a_four_are_the_same) {
  const FloatEnvironment ours;
  const auto x = wild_floats(600, 3);
  std::vector<float> want(x.size());
  run_unary({x.data(), want.data(), static_cast<int64_t>(x.size()), 0, 0, Unary::kSigmoid}, 1);
  for (const int64_t n : {1, 2, 3, 4, 5, 7, 513}) {
    for (const size_t skip : {0u, 1u, 4u}) {
      std::vector<float> y(x.size(), -1);
      run_unary({x.data() + skip, y.data() + skip, n, 0, 0, Unary::kSigmoid}, 2);
      if (!same_values(y.data() + skip, want.data() + skip, static_cast<size_t>(n), cat(n, " from ", skip))) return;
      CHECK_EQ(y[skip + static_cast<size_t>(n)], -1.0f);
      if (skip > 0) CHECK_EQ(y[skip - 1], -1.0f);
    }
  }
}

template <class T>
std::vector<char> compared(cuda::Element type, cuda::Compare op, const std::vector<T>& a, const std::vector<T>& b) {
  std::vector<char> out(a.size());
  cuda::CompareParams p{a.data(), b.data(), reinterpret_cast<bool*>(out.data()), {}, type, op};
  p.nest = {static_cast<int64_t>(a.size()), {static_cast<int64_t>(a.size())}, {{1}, {1}}, 1};
  cuda_on_host::launch(cuda::Kernel::compare, {.threads = {32}}, &p);
  return out;
}

TEST(comparisons_are_those_of_numbers) {
  const FloatEnvironment ours;
  const std::vector<float> a{1, 2, NAN, 0, -INFINITY}, b{1, 3, NAN, -0.0f, 4};
  using C = cuda::Compare;
  CHECK((compared(cuda::Element::kF32, C::kEqual, a, b) == std::vector<char>{1, 0, 0, 1, 0}));
  CHECK((compared(cuda::Element::kF32, C::kLess, a, b) == std::vector<char>{0, 1, 0, 0, 1}));
  CHECK((compared(cuda::Element::kF32, C::kLessOrEqual, a, b) == std::vector<char>{1, 1, 0, 1, 1}));
  CHECK((compared(cuda::Element::kF32, C::kGreater, a, b) == std::vector<char>{0, 0, 0, 0, 0}));
  CHECK((compared(cuda::Element::kF32, C::kGreaterOrEqual, a, b) == std::vector<char>{1, 0, 0, 1, 0}));
  // Beyond what a float, or 32 bits, can tell apart.
  const std::vector<int64_t> c{(int64_t{1} << 60) + 1, -1}, d{int64_t{1} << 60, int64_t{1} << 32};
  CHECK((compared(cuda::Element::kI64, C::kGreater, c, d) == std::vector<char>{1, 0}));
  CHECK((compared(cuda::Element::kI64, C::kEqual, c, d) == std::vector<char>{0, 0}));
  CHECK((compared<int32_t>(cuda::Element::kI32, C::kLess, {-5, 7}, {3, 7}) == std::vector<char>{1, 0}));
  CHECK((compared<char>(cuda::Element::kBool, C::kEqual, {1, 0, 1}, {1, 1, 0}) == std::vector<char>{1, 0, 0}));
}

template <class From, class To>
std::vector<To> cast(cuda::Element from, cuda::Element to, const std::vector<From>& x) {
  std::vector<To> y(x.size());
  const cuda::CastParams p{x.data(), y.data(), static_cast<int64_t>(x.size()), from, to};
  cuda_on_host::launch(cuda::Kernel::cast, {.threads = {32}}, &p);
  return y;
}

TEST(casts_saturate_wrap_and_round) {
  const FloatEnvironment ours;
  using E = cuda::Element;
  const std::vector<float> x{1.9f, -1.9f, 3e9f, -3e9f, NAN, INFINITY, 0, 1e30f};
  CHECK((cast<float, int32_t>(E::kF32, E::kI32, x) ==
         std::vector<int32_t>{1, -1, INT32_MAX, INT32_MIN, 0, INT32_MAX, 0, INT32_MAX}));
  CHECK((cast<float, int64_t>(E::kF32, E::kI64, x) ==
         std::vector<int64_t>{1, -1, 3000000000, -3000000000, 0, INT64_MAX, 0, INT64_MAX}));
  CHECK((cast<float, char>(E::kF32, E::kBool, x) == std::vector<char>{1, 1, 1, 1, 1, 1, 0, 1}));
  CHECK((cast<int64_t, int32_t>(E::kI64, E::kI32, {5, (int64_t{1} << 32) + 7, -1}) == std::vector<int32_t>{5, 7, -1}));
  CHECK((cast<int64_t, float>(E::kI64, E::kF32, {16777217, -3}) == std::vector<float>{16777216.0f, -3.0f}));
  CHECK((cast<int32_t, float>(E::kI32, E::kF32, {INT32_MAX}) == std::vector<float>{2147483648.0f}));
  CHECK((cast<char, float>(E::kBool, E::kF32, {1, 0}) == std::vector<float>{1, 0}));
  CHECK((cast<int32_t, int64_t>(E::kI32, E::kI64, {-9}) == std::vector<int64_t>{-9}));
}

TEST(where_takes_elements_of_any_width) {
  const std::vector<char> condition{1, 0, 1};
  const auto check = [&]<class T>(T a, T b) {
    std::vector<T> left(3, a), right(1, b), y(3);
    cuda::SelectParams p{
        reinterpret_cast<const bool*>(condition.data()), left.data(), right.data(), y.data(), {}, sizeof(T)};
    p.nest = {3, {3}, {{1}, {1}, {0}}, 1};
    cuda_on_host::launch(cuda::Kernel::select, {.threads = {32}}, &p);
    CHECK((y == std::vector<T>{a, b, a}));
  };
  check(uint8_t{200}, uint8_t{3});
  check(uint16_t{40000}, uint16_t{3});
  check(1.5f, -2.5f);
  check(int64_t{1} << 40, int64_t{-1});
}

TEST(where_takes_four_at_a_time_what_it_takes_one_by_one) {
  const auto a = wild_floats(600, 5), b = wild_floats(600, 6);
  std::vector<char> condition(600);
  for (size_t i = 0; i < condition.size(); ++i) condition[i] = static_cast<char>(i % 3 == 0 || i % 7 == 2);
  const std::pair<const char*, cuda::Nest<3>> nests[] = {
      {"side by side", {403, {403}, {{1}, {1}, {1}}, 1}},
      {"a scalar", {403, {403}, {{1}, {0}, {1}}, 1}},
      {"one condition", {403, {403}, {{0}, {1}, {1}}, 1}},
      {"rows", {5 * 36, {5, 36}, {{0, 1}, {36, 1}, {1, 0}}, 2}},
  };
  for (const auto& [what, nest] : nests) {
    for (const size_t skip : {0u, 1u, 4u}) {
      std::vector<float> want(420, -1), y(want);
      cuda::SelectParams p{
          reinterpret_cast<const bool*>(condition.data()) + skip, a.data(), b.data(), want.data() + skip, nest, 4};
      cuda_on_host::launch(cuda::Kernel::select, {.threads = {32}}, &p);
      cuda::prepare(p.nest);
      CHECK(p.nest.by_fours);
      p.y = y.data() + skip;
      cuda_on_host::launch(cuda::Kernel::select, {.blocks = {2}, .threads = {32}}, &p);
      CHECK(std::memcmp(y.data(), want.data(), y.size() * sizeof(float)) == 0);
      if (skip != 0) continue;
      std::vector<char> swapped(condition);
      for (char& c : swapped) c = c == 0;
      p.condition = reinterpret_cast<const bool*>(swapped.data());
      cuda_on_host::launch(cuda::Kernel::select, {.threads = {32}}, &p);
      CHECK(std::memcmp(y.data(), want.data(), y.size() * sizeof(float)) != 0);
    }
  }
}

TEST(a_scan_finds_what_is_not_finite_and_not_allowed) {
  constexpr int64_t kN = 1000;
  struct Allowed {
    bool nan, infinity, minus_infinity;
  };
  for (const Allowed allowed : {Allowed{false, false, false}, Allowed{true, false, false}, Allowed{false, false, true},
                                Allowed{true, true, true}}) {
    for (const float bad : {0.0f, NAN, -NAN, INFINITY, -INFINITY, 3.4e38f, 1e-42f}) {
      for (const int64_t at : {int64_t{0}, int64_t{517}, kN - 1}) {
        std::vector<float> x(kN, 1.5f);
        x[static_cast<size_t>(at)] = bad;
        const bool want = (std::isnan(bad) && !allowed.nan) || (bad == INFINITY && !allowed.infinity) ||
                          (bad == -INFINITY && !allowed.minus_infinity);
        for (const uint64_t seed : kSeeds) {
          uint32_t found = 0;
          const cuda::ScanParams p{x.data(), &found, kN, allowed.nan, allowed.infinity, allowed.minus_infinity};
          cuda_on_host::launch(cuda::Kernel::scan_f32, {.blocks = {3}, .threads = {64}, .seed = seed}, &p);
          CHECK_EQ(found, want ? 1u : 0u);
        }
      }
    }
  }
}

}  // namespace
