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
