#include "kernels/cpu/binary/binary.h"
#include "support.h"

using namespace inferkit;
using namespace inferkit::kernels;
using namespace inferkit::testing;

namespace {

float exact(Binary op, float a, float b) {
  switch (op) {
    case Binary::kAdd:
      return a + b;
    case Binary::kSub:
      return a - b;
    case Binary::kMul:
      return a * b;
    case Binary::kDiv:
      return a / b;
    case Binary::kMin:
      return std::isnan(a) || std::isnan(b) ? NAN : std::fmin(a, b);
    case Binary::kMax:
      return std::isnan(a) || std::isnan(b) ? NAN : std::fmax(a, b);
    case Binary::kPrelu:
      return a < 0 ? a * b : a;
  }
  return NAN;
}

}  // namespace

TEST(binary_is_ieee_arithmetic_in_every_form_and_length) {
  auto a = random_floats(100, 1, -9, 9), b = random_floats(100, 2, -9, 9);
  a[3] = NAN, b[5] = NAN, a[20] = INFINITY, b[21] = -INFINITY, b[22] = 1e-40f;
  for (const Isa isa : available_isas()) {
    for (int op = 0; op < kBinaryCount; ++op) {
      for (int form = 0; form < kBinaryFormCount; ++form) {
        const BinaryFn f = binary_kernels(isa).fn[op][form];
        const bool scalar_a = form == static_cast<int>(BinaryForm::kScalarVector);
        const bool scalar_b = form == static_cast<int>(BinaryForm::kVectorScalar);
        for (size_t n = 0; n <= a.size(); ++n) {
          Guarded y(n);
          f(a.data(), b.data(), y.data(), static_cast<int64_t>(n));
          bool good = y.intact();
          for (size_t i = 0; i < n; ++i) {
            good = good && same(y[i], exact(static_cast<Binary>(op), a[scalar_a ? 0 : i], b[scalar_b ? 0 : i]));
          }
          CHECK(good);
        }
      }
    }
  }
}

TEST(binary_works_in_place) {
  const auto a = random_floats(37, 3), b = random_floats(37, 4);
  for (const Isa isa : available_isas()) {
    const auto& f = binary_kernels(isa).fn[static_cast<int>(Binary::kSub)];
    auto over_a = a, over_b = b, over_scalar = b;
    f[0](over_a.data(), b.data(), over_a.data(), 37);
    f[0](a.data(), over_b.data(), over_b.data(), 37);
    f[1](a.data(), over_scalar.data(), over_scalar.data(), 37);  // the scalar is read before it is overwritten
    for (size_t i = 0; i < 37; ++i) {
      CHECK_EQ(over_a[i], a[i] - b[i]);
      CHECK_EQ(over_b[i], a[i] - b[i]);
      CHECK_EQ(over_scalar[i], a[i] - b[0]);
    }
  }
}
