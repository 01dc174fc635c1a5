#include <bit>

#include "kernels/cpu/vmath/vmath.h"
#include "support.h"

using namespace inferkit;
using namespace inferkit::kernels;
using namespace inferkit::testing;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Case {
  const char* name;
  Unary op;
  double (*exact)(double x);
  float alpha, beta;
  /// Allowed error: units in the last place of the answer, plus so many of the last place of x (functions that are x
  /// times a factor near 0 lose what the factor lost).
  double ulps, ulps_of_x;
};

/// x times a factor that is subnormal, and so has few bits.
constexpr double kSubnormal = 0x1p-126;

/// What these count as zero.
double flushed(double x) { return std::fabs(x) < 0x1p-126 ? std::copysign(0.0, x) : x; }
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double unit(double x) { return std::min(1.0, std::max(0.0, x)); }

const Case kCases[] = {
    {"identity", Unary::kIdentity, [](double x) { return x; }, 0, 0, 0, 0},
    {"relu", Unary::kRelu, [](double x) { return x < 0 ? 0 : x; }, 0, 0, 0, 0},
    {"leaky_relu", Unary::kLeakyRelu, [](double x) { return x < 0 ? 0.01f * x : x; }, 0.01f, 0, 0.51, 0},
    {"clip", Unary::kClip, [](double x) { return x < -0.5 ? -0.5
                                                 : x > 6  ? 6
                                                          : x; }, -0.5f, 6, 0, 0},
    {"sigmoid", Unary::kSigmoid, sigmoid, 0, 0, 3, 0},
    {"tanh", Unary::kTanh, [](double x) { return std::tanh(x); }, 0, 0, 3, 0},
    {"gelu", Unary::kGelu, [](double x) { return x == -INFINITY ? 0 : x / 2 * (1 + std::erf(x / std::sqrt(2.0))); }, 0,
     0, 2, 2},
    {"gelu_tanh", Unary::kGeluTanh,
     [](double x) {
       return x == -INFINITY ? 0 : x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
     },
     0, 0, 2, 2},
    {"silu", Unary::kSilu, [](double x) { return x == -INFINITY ? 0 : x * sigmoid(x); }, 1, 0, 4, kSubnormal},
    {"hard_swish", Unary::kHardSwish, [](double x) { return x == -INFINITY ? 0 : x * unit(x / 6 + 0.5); }, 0, 0, 2, 1},
    {"hard_sigmoid", Unary::kHardSigmoid, [](double x) { return unit(0.25 * x + 0.5); }, 0.25f, 0.5f, 2, 1},
    {"elu", Unary::kElu, [](double x) { return x < 0 ? 1.5 * std::expm1(x) : x; }, 1.5f, 0, 3, 0},
    {"selu", Unary::kSelu, [](double x) { return 1.25 * (x < 0 ? 1.5 * std::expm1(x) : x); }, 1.5f, 1.25f, 4, 0},
    {"celu", Unary::kCelu, [](double x) { return x < 0 ? 2 * std::expm1(x / 2) : x; }, 2, 0, 3, 0},
    {"softplus", Unary::kSoftplus, [](double x) { return x > 50 ? x : std::log1p(std::exp(x)); }, 0, 0, 3, 0},
    {"softsign", Unary::kSoftsign,
     [](double x) { return std::isinf(x) ? std::copysign(1, x) : x / (1 + std::fabs(x)); }, 0, 0, 2, 0},
    {"mish", Unary::kMish,
     [](double x) { return x == -INFINITY ? 0
                           : x > 50       ? x
                                          : x * std::tanh(std::log1p(std::exp(x))); }, 0, 0, 5,
     kSubnormal},
    {"thresholded_relu", Unary::kThresholdedRelu, [](double x) { return x > 0.75 ? x : 0; }, 0.75f, 0, 0, 0},
    {"exp", Unary::kExp, [](double x) { return std::exp(x); }, 0, 0, 2, 0},
    {"log", Unary::kLog, [](double x) { return x < 0 ? NAN : std::log(x); }, 0, 0, 2, 0},
    {"erf", Unary::kErf, [](double x) { return std::erf(x); }, 0, 0, 3, 0},
    {"abs", Unary::kAbs, [](double x) { return std::fabs(x); }, 0, 0, 0, 0},
    {"neg", Unary::kNeg, [](double x) { return -x; }, 0, 0, 0, 0},
    {"sign", Unary::kSign, [](double x) { return x > 0   ? 1
                                                 : x < 0 ? -1
                                                         : x; }, 0, 0, 0, 0},
    {"square", Unary::kSquare, [](double x) { return x * x; }, 0, 0, 0.51, 0},
    {"sqrt", Unary::kSqrt, [](double x) { return std::sqrt(x); }, 0, 0, 0.51, 0},
    {"reciprocal", Unary::kReciprocal, [](double x) { return 1 / x; }, 0, 0, 0.51, 0},
    {"floor", Unary::kFloor, [](double x) { return std::floor(x); }, 0, 0, 0, 0},
    {"ceil", Unary::kCeil, [](double x) { return std::ceil(x); }, 0, 0, 0, 0},
    {"round", Unary::kRound, [](double x) { return std::nearbyint(x); }, 0, 0, 0, 0},
    {"sin", Unary::kSin, [](double x) { return std::sin(x); }, 0, 0, 0.51, 0},
    {"cos", Unary::kCos, [](double x) { return std::cos(x); }, 0, 0, 0.51, 0},
    {"tan", Unary::kTan, [](double x) { return std::tan(x); }, 0, 0, 0.51, 0},
    {"atan", Unary::kAtan, [](double x) { return std::atan(flushed(x)); }, 0, 0, 0.5001, 0},
    {"asin", Unary::kAsin, [](double x) { return std::asin(flushed(x)); }, 0, 0, 0.5001, 0},
    {"acos", Unary::kAcos, [](double x) { return std::acos(x); }, 0, 0, 0.5001, 0},
    {"sinh", Unary::kSinh, [](double x) { return std::sinh(flushed(x)); }, 0, 0, 0.5001, 0},
    {"cosh", Unary::kCosh, [](double x) { return std::cosh(x); }, 0, 0, 0.5001, 0},
    {"asinh", Unary::kAsinh, [](double x) { return std::asinh(flushed(x)); }, 0, 0, 0.5001, 0},
    {"acosh", Unary::kAcosh, [](double x) { return std::acosh(x); }, 0, 0, 0.5001, 0},
    {"atanh", Unary::kAtanh, [](double x) { return std::atanh(flushed(x)); }, 0, 0, 0.5001, 0},
};
static_assert(std::size(kCases) == kUnaryCount);

/// Every exponent and sign with many fractions, a fine sweep of the interesting range, and the special values.
std::vector<float> inputs() {
  std::vector<float> out = {0.0f,
                            -0.0f,
                            kInf,
                            -kInf,
                            0x1p-149f,
                            -0x1p-149f,
                            0x1p-126f,
                            std::numeric_limits<float>::max(),
                            std::numeric_limits<float>::lowest(),
                            1,
                            -1,
                            0.5f,
                            -0.5f,
                            1.5f,
                            2.5f,
                            -2.5f,
                            88.72283f,
                            88.72284f,
                            -87.33655f,
                            -103.9f,
                            -104.1f,
                            0.625f,
                            0.921875f};
  std::mt19937 engine(7);
  for (uint32_t top = 0; top < 512; ++top) {
    for (int i = 0; i < 64; ++i) {
      const float x = std::bit_cast<float>(top << 23 | static_cast<uint32_t>(engine() & 0x7fffff));
      if (std::isfinite(x)) out.push_back(x);
    }
  }
  for (float x = -110; x < 110; x += 0.00317f) out.push_back(x);
  for (float x = -10; x < 10; x += 0.000311f) out.push_back(x);
  return out;
}

}  // namespace

TEST(vmath_close_to_double) {
  const auto x = inputs();
  std::vector<float> y(x.size());
  for (const Isa isa : available_isas()) {
    for (const Case& c : kCases) {
      vmath_kernels(isa).unary[static_cast<size_t>(c.op)](x.data(), y.data(), static_cast<int64_t>(x.size()), c.alpha,
                                                          c.beta);
      double worst = 0;
      float where = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        const double want = c.exact(x[i]);
        double error = ulps(y[i], want);
        if (c.ulps_of_x > 0 && std::isfinite(x[i]) && std::isfinite(y[i])) {
          const double slack =
              c.ulps_of_x * std::ldexp(1.0, std::max(std::ilogb(x[i] == 0 ? 1e-300 : x[i]), -126) - 23);
          error = std::fabs(y[i] - want) <= slack ? 0 : error;
        }
        if (!(error <= worst)) worst = error, where = x[i];
      }
      if (!(worst <= c.ulps)) {
        fail(__FILE__, __LINE__,
             std::string(c.name) + " on " + std::string(isa_name(isa)) + ": " + std::to_string(worst) + " ulp at " +
                 std::to_string(where));
      }
      if (std::getenv("INFERKIT_TEST_PRINT")) {
        std::cout << isa_name(isa) << " " << c.name << ": " << worst << " ulp at " << where << "\n";
      }
    }
  }
}

// But for ThresholdedRelu, which is x where x > alpha and 0 elsewhere.
TEST(vmath_nan_gives_nan) {
  const float x[3] = {kNan, -kNan, 1};
  for (const Isa isa : available_isas()) {
    for (const Case& c : kCases) {
      float y[3];
      vmath_kernels(isa).unary[static_cast<size_t>(c.op)](x, y, 3, c.alpha, c.beta);
      if (c.op == Unary::kThresholdedRelu) {
        CHECK(bits(y[0]) == 0 && bits(y[1]) == 0 && y[2] == 1);
        continue;
      }
      CHECK(std::isnan(y[0]) && std::isnan(y[1]) && !std::isnan(y[2]));
    }
  }
}

TEST(vmath_signed_zero) {
  const float x = -0.0f;
  for (const Isa isa : available_isas()) {
    for (const Unary op :
         {Unary::kTanh, Unary::kErf, Unary::kSoftsign, Unary::kFloor, Unary::kRound, Unary::kSqrt, Unary::kSin,
          Unary::kTan, Unary::kAtan, Unary::kAsin, Unary::kSinh, Unary::kAsinh, Unary::kAtanh}) {
      float y = 1;
      vmath_kernels(isa).unary[static_cast<size_t>(op)](&x, &y, 1, 1, 1);
      CHECK_EQ(bits(y), bits(-0.0f));
    }
  }
}

// The place of an element, the length of the span and working in place change no bit; nothing past the end is touched.
TEST(vmath_place_does_not_matter) {
  const auto x = random_floats(70, 3, -6, 6);
  for (const Isa isa : available_isas()) {
    for (const Case& c : kCases) {
      const UnaryFn f = vmath_kernels(isa).unary[static_cast<size_t>(c.op)];
      std::vector<float> whole(x.size());
      f(x.data(), whole.data(), static_cast<int64_t>(x.size()), c.alpha, c.beta);
      for (size_t first = 0; first < 5; ++first) {
        for (size_t n = 0; n + first <= x.size(); ++n) {
          Guarded y(n);
          std::copy_n(x.begin() + static_cast<int64_t>(first), n, y.data());
          f(y.data(), y.data(), static_cast<int64_t>(n), c.alpha, c.beta);
          CHECK(same(y.data(), whole.data() + first, n));
          CHECK(y.intact());
        }
      }
    }
  }
}

TEST(vmath_bits_are_those_of_avx2_above_it) {
  const auto x = inputs();
  std::vector<float> a(x.size()), b(x.size());
  for (const Isa isa : tiers_above_avx2()) {
    for (const Case& c : kCases) {
      const size_t op = static_cast<size_t>(c.op);
      vmath_kernels(Isa::kAvx2).unary[op](x.data(), a.data(), static_cast<int64_t>(x.size()), c.alpha, c.beta);
      vmath_kernels(isa).unary[op](x.data(), b.data(), static_cast<int64_t>(x.size()), c.alpha, c.beta);
      if (!same(a.data(), b.data(), x.size())) fail(__FILE__, __LINE__, std::string(c.name) + " differs");
    }
  }
}

// What is computed in double, without an instruction that only some tiers have.
TEST(vmath_elementary_bits_are_those_of_the_baseline) {
  const auto x = inputs();
  std::vector<float> a(x.size()), b(x.size());
  for (const Isa isa : available_isas()) {
    for (int op = static_cast<int>(Unary::kSin); op < kUnaryCount; ++op) {
      vmath_kernels(Isa::kBaseline).unary[op](x.data(), a.data(), static_cast<int64_t>(x.size()), 0, 0);
      vmath_kernels(isa).unary[op](x.data(), b.data(), static_cast<int64_t>(x.size()), 0, 0);
      if (!same(a.data(), b.data(), x.size())) fail(__FILE__, __LINE__, std::string(kCases[op].name) + " differs");
    }
  }
}

namespace {

/// Bases and exponents: ordinary, special, of many sizes, and those whose powers are the middle of two floats.
void bases_and_exponents(std::vector<float>& x, std::vector<double>& e) {
  const double specials[] = {0,        -0.0, 1,    -1,  kInf, -kInf, kNan, 2,        -2,        3,
                             -3,       0.5,  -0.5, 1.5, 2.5,  -1.5,  4,    16777215, -16777215, 0x1.fffffep127,
                             0x1p-126, 1e-3, 1e30};
  const double more[] = {0x1p53, 0x1p53 - 1, 0x1p52 + 1, -(0x1p52 + 1), 1e300, -1e300, 1e-300, 0.1, 1 / 3.0};
  for (const double base : specials) {
    for (const double exponent : specials) x.push_back(static_cast<float>(base)), e.push_back(exponent);
    for (const double exponent : more) x.push_back(static_cast<float>(base)), e.push_back(exponent);
  }
  for (int base = -330; base < 330; ++base) {
    for (int twice = -9; twice < 33; ++twice) x.push_back(static_cast<float>(base)), e.push_back(twice / 2.0);
  }
  std::mt19937 engine(11);
  std::uniform_real_distribution<double> log(-86, 86), exponent(-4, 4), unit(0, 1);
  for (int i = 0; i < 100000; ++i) {
    x.push_back(static_cast<float>(std::exp(log(engine) * (i % 4 == 0 ? 1 : 1e-3))));
    e.push_back(exponent(engine) * (i % 3 == 0 ? 1e3 : 1));
  }
}

}  // namespace

TEST(vmath_power_is_that_of_the_c_library_rounded_once) {
  std::vector<float> x;
  std::vector<double> e;
  bases_and_exponents(x, e);
  std::vector<float> y(x.size()), one(x.size());
  for (const Isa isa : available_isas()) {
    const VmathKernels& kernels = vmath_kernels(isa);
    kernels.power(x.data(), e.data(), y.data(), static_cast<int64_t>(x.size()));
    size_t differ = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      kernels.power_of_one(&x[i], e[i], &one[i], 1);
      const double want = flushed(std::pow(static_cast<double>(x[i]), e[i]));
      const auto rounded = static_cast<float>(want);
      if (bits(y[i]) == bits(rounded) || (std::isnan(y[i]) && std::isnan(rounded))) continue;
      differ += 1;
      // Within what the digits that are kept tell, and never for what is 0, infinite or of another sign.
      const bool finite = std::isfinite(rounded) && rounded != 0;
      if (!finite || !(ulps(y[i], want) < 0.5001)) {
        fail(__FILE__, __LINE__, std::to_string(x[i]) + " to " + std::to_string(e[i]) + " is " + std::to_string(y[i]));
      }
    }
    CHECK(differ < x.size() / 10000);
    CHECK(same(y.data(), one.data(), x.size()));
    if (isa == available_isas().front()) continue;
    std::vector<float> other(x.size());
    vmath_kernels(available_isas().front()).power(x.data(), e.data(), other.data(), static_cast<int64_t>(x.size()));
    CHECK(same(y.data(), other.data(), x.size()));
    std::vector<float> in_place = x;
    kernels.power(in_place.data(), e.data(), in_place.data(), static_cast<int64_t>(x.size()));
    CHECK(same(in_place.data(), y.data(), x.size()));
  }
}
