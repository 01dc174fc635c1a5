// Det: the determinant of square matrices, by elimination in double with the largest element as pivot.
#include <cmath>

#include "engine/compile/op_registry.h"
#include "engine/ops/dispatch.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

struct DetParams {
  int64_t matrices, n;
};

double determinant(double* m, int64_t n, WorkMeter& meter) {
  double result = 1;
  for (int64_t k = 0; k < n && meter.go_on((n - k) * (n - k)); ++k) {
    int64_t pivot = k;
    for (int64_t i = k + 1; i < n; ++i) {
      if (std::fabs(m[i * n + k]) > std::fabs(m[pivot * n + k])) pivot = i;
    }
    if (m[pivot * n + k] == 0) return 0;
    if (pivot != k) {
      std::swap_ranges(m + k * n, m + (k + 1) * n, m + pivot * n);
      result = -result;
    }
    result *= m[k * n + k];
    for (int64_t i = k + 1; i < n; ++i) {
      const double factor = m[i * n + k] / m[k * n + k];
      for (int64_t j = k; j < n; ++j) m[i * n + j] -= factor * m[k * n + j];
    }
  }
  return result;
}

/// io: y, x, room for a matrix.
template <class T>
void det_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const DetParams*>(params);
  auto* work = reinterpret_cast<double*>(io[2]);
  WorkMeter meter;
  for (int64_t i = 0; i < p.matrices && meter.go_on(p.n * p.n); ++i) {
    const T* x = reinterpret_cast<const T*>(io[1]) + i * p.n * p.n;
    for (int64_t j = 0; j < p.n * p.n; ++j) work[j] = static_cast<double>(load(x[j]));
    reinterpret_cast<T*>(io[0])[i] = store<T>(static_cast<Compute<T>>(determinant(work, p.n, meter)));
  }
}

void infer_det(InferContext& c) {
  require_type(c, 0, kFloatTypes);
  const Shape& x = c.input(0).shape;
  if (x.rank() < 2 || x.back() != x[x.rank() - 2]) c.fail(cat("expected square matrices, got ", x.str()));
  c.set_output(0, c.input(0).dtype, Shape(x.dims().first(x.rank() - 2)));
}

void lower_det(LowerContext& c) {
  const DetParams p{c.output(0).shape.elements(), c.input(0).shape.back()};
  const StepFn fn = dispatch<kFloatTypes>(c.input(0).dtype, []<class T>() -> StepFn { return det_step<T>; });
  c.step(fn, p, {c.out(0), c.in(0), c.scratch(static_cast<size_t>(p.n * p.n) * sizeof(double))},
         multiplied(p.matrices, p.n, p.n, p.n));
}

}  // namespace

void register_det(OpRegistry& r) {
  r.add({.name = "Det", .since = 11, .min_inputs = 1, .max_inputs = 1, .max_outputs = 1, .infer = infer_det},
        lower_det);
}

}  // namespace inferkit
