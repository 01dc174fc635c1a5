// com.microsoft's Inverse: the inverse of square matrices, in double by elimination with the largest element of a
// column as pivot. A matrix without an inverse gives NaN.
#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/compile/op_registry.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/parallel.h"

namespace inferkit {
namespace {

constexpr int kMaxInverseSlots = 16;
constexpr double kInverseGrain = 1 << 16;  // products that are worth a thread

struct InverseParams {
  int64_t matrices, n;
  int slots;
};

/// Turns `a` into an upper triangle and `b`, the identity at first, into the inverse. False where a column has no
/// pivot, and where the run was told to stop.
bool invert(double* a, double* b, int64_t n, WorkMeter& meter) {
  const auto subtract = [n](double* row, const double* other, double factor, int64_t from) {
    for (int64_t j = from; j < n; ++j) row[j] -= factor * other[j];
  };
  for (int64_t k = 0; k < n; ++k) {
    if (!meter.go_on(2 * (n - k) * n)) return false;
    int64_t pivot = k;
    for (int64_t i = k + 1; i < n; ++i) {
      if (std::fabs(a[i * n + k]) > std::fabs(a[pivot * n + k])) pivot = i;
    }
    if (!(std::fabs(a[pivot * n + k]) > 0)) return false;
    if (pivot != k) {
      std::swap_ranges(a + k * n, a + (k + 1) * n, a + pivot * n);
      std::swap_ranges(b + k * n, b + (k + 1) * n, b + pivot * n);
    }
    for (int64_t i = k + 1; i < n; ++i) {
      const double factor = a[i * n + k] / a[k * n + k];
      if (factor == 0) continue;
      subtract(a + i * n, a + k * n, factor, k);
      subtract(b + i * n, b + k * n, factor, 0);
    }
  }
  for (int64_t k = n - 1; k >= 0; --k) {
    if (!meter.go_on((k + 1) * n)) return false;
    for (int64_t j = 0; j < n; ++j) b[k * n + j] /= a[k * n + k];
    for (int64_t i = 0; i < k; ++i) subtract(b + i * n, b + k * n, a[i * n + k], 0);
  }
  return true;
}

/// io: y, x, room for two matrices for each slot.
template <class T>
void run_inverse(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const InverseParams*>(params);
  const int64_t size = p.n * p.n;
  for_tasks(context, p.matrices, p.slots, [&](int64_t m, int slot) {
    double* a = reinterpret_cast<double*>(io[2]) + 2 * size * slot;
    double* b = a + size;
    const T* x = reinterpret_cast<const T*>(io[1]) + m * size;
    T* y = reinterpret_cast<T*>(io[0]) + m * size;
    WorkMeter meter;
    for (int64_t i = 0; i < size; ++i) a[i] = static_cast<double>(load(x[i]));
    std::fill(b, b + size, 0.0);
    for (int64_t i = 0; i < p.n; ++i) b[i * p.n + i] = 1;
    if (!invert(a, b, p.n, meter)) std::fill(b, b + size, std::numeric_limits<double>::quiet_NaN());
    for (int64_t i = 0; i < size; ++i) y[i] = store<T>(static_cast<Compute<T>>(b[i]));
  });
}

void infer_inverse(InferContext& c) {
  require_type(c, 0, kFloatTypes);
  const Shape& x = c.input(0).shape;
  if (x.rank() < 2 || x.back() != x[x.rank() - 2]) c.fail(cat("expected square matrices, got ", x.str()));
  c.set_output(0, c.input(0).dtype, x);
}

void lower_inverse(LowerContext& c) {
  const Shape& x = c.input(0).shape;
  const int64_t n = x.back(), matrices = x.elements(0, x.rank() - 2);
  if (x.elements() == 0) return;
  const double each = static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n) * 1.4;
  InverseParams p{matrices, n, 1};
  if (each * static_cast<double>(matrices) >= kInverseGrain) {
    p.slots = static_cast<int>(std::min<int64_t>(matrices, std::min(c.threads(), kMaxInverseSlots)));
  }
  const StepFn fn = dispatch<kFloatTypes>(c.input(0).dtype, []<class T>() -> StepFn { return run_inverse<T>; });
  c.step(fn, p, {c.out(0), c.in(0), c.scratch(static_cast<size_t>(p.slots * 2 * n * n) * sizeof(double))},
         each * static_cast<double>(matrices));
}

Axes axes_of_matrices(const NodeContext& c, size_t) {
  const auto rank = static_cast<int64_t>(c.input(0).shape.rank());
  return rank < 2 ? Axes{0} : static_cast<Axes>(one_axis(rank - 1) | one_axis(rank - 2));
}

}  // namespace

void register_inverse(OpRegistry& r) {
  r.add({.domain = kMicrosoft,
         .name = "Inverse",
         .min_inputs = 1,
         .max_inputs = 1,
         .max_outputs = 1,
         .infer = infer_inverse,
         .mixed_axes = axes_of_matrices},
        lower_inverse);
}

}  // namespace inferkit
