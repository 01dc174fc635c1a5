#include <cmath>

#include "kernels/cpu/recurrent/recurrent.h"
#include "support.h"

using namespace inferkit;
using namespace inferkit::kernels;
using namespace inferkit::testing;

namespace {

double s(double x) { return 1 / (1 + std::exp(-x)); }
constexpr double kClose = 0x1p-20;

}  // namespace

TEST(recurrent_lstm_close_to_double_and_one_on_all_vectors) {
  for (size_t n = 0; n < 50; ++n) {
    const auto gates = random_floats(4 * n, 1), before = random_floats(n, 2);
    std::vector<std::vector<float>> results;
    for (const Isa isa : available_isas()) {
      Guarded c(n), h(n), y(n);
      std::copy(before.begin(), before.begin() + static_cast<std::ptrdiff_t>(n), c.data());
      recurrent_kernels(isa).lstm(gates.data(), c.data(), h.data(), y.data(), static_cast<int64_t>(n));
      CHECK(c.intact() && h.intact() && y.intact());
      for (size_t i = 0; i < n; ++i) {
        const double cell = s(gates[2 * n + i]) * before[i] + s(gates[i]) * std::tanh(gates[3 * n + i]);
        CHECK(std::fabs(c[i] - cell) <= kClose);
        CHECK(std::fabs(h[i] - s(gates[n + i]) * std::tanh(cell)) <= kClose);
        CHECK_EQ(h[i], y[i]);
      }
      results.emplace_back(h.data(), h.data() + n);
    }
    for (size_t i = 2; i < results.size(); ++i) CHECK(same(results[1].data(), results[i].data(), n));
  }
}

TEST(recurrent_gru_close_to_double_and_one_on_all_vectors) {
  for (size_t n = 0; n < 50; ++n) {
    const auto count = static_cast<int64_t>(n);
    const auto gates = random_floats(3 * n, 1), before = random_floats(n, 2), part = random_floats(n, 3);
    std::vector<std::vector<float>> results;
    for (const Isa isa : available_isas()) {
      const RecurrentKernels& k = recurrent_kernels(isa);
      Guarded rh(n), h(n), after(n), y(n);
      k.gru_reset(gates.data() + n, before.data(), rh.data(), count);
      std::copy(before.begin(), before.begin() + static_cast<std::ptrdiff_t>(n), h.data());
      std::copy(before.begin(), before.begin() + static_cast<std::ptrdiff_t>(n), after.data());
      k.gru_update(gates.data(), gates.data() + 2 * n, h.data(), nullptr, count);
      k.gru_reset_after(gates.data(), part.data(), after.data(), y.data(), count);
      CHECK(rh.intact() && h.intact() && after.intact() && y.intact());
      for (size_t i = 0; i < n; ++i) {
        const double z = s(gates[i]), r = s(gates[n + i]), x = gates[2 * n + i];
        CHECK(std::fabs(rh[i] - r * before[i]) <= kClose);
        CHECK(std::fabs(h[i] - ((1 - z) * std::tanh(x) + z * before[i])) <= kClose);
        CHECK(std::fabs(after[i] - ((1 - z) * std::tanh(x + r * part[i]) + z * before[i])) <= kClose);
        CHECK_EQ(after[i], y[i]);
      }
      results.emplace_back(after.data(), after.data() + n);
    }
    for (size_t i = 2; i < results.size(); ++i) CHECK(same(results[1].data(), results[i].data(), n));
  }
}
